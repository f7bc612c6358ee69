//! Commands that documents show: blocks marked `sh` in Markdown files, and the examples of `--help`.
//!
//! Read loosely: a line's program, subcommand and flags are looked up where they are declared; values are not.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::Tree;
use crate::COMMANDS;

/// The start of the paths of the files that declare the command line.
const CLI: &str = "crates/edgetool/src/cli";
/// Flags that clap adds.
const BUILT_IN: &[&str] = &["--help", "-h", "--version", "-V"];

/// Every command exists.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let sources: Vec<(&str, &str)> = tree.texts(".rs").filter(|(path, _)| path.starts_with(CLI)).collect();
    let cli = Cli::parse(&sources.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n"));
    let mut problems = Vec::new();
    for (path, text) in tree.texts(".md") {
        for (line, command) in blocks(text) {
            problems.extend(fault(&command, &cli, tree).map(|what| format!("{path}:{line}: {what}")));
        }
    }
    for (path, text) in sources {
        for (index, line) in text.lines().enumerate() {
            let example =
                line.strip_prefix("  edgetool ").map(|rest| format!("edgetool {}", rest.trim_end_matches("\";")));
            let what = example.and_then(|e| fault(&e, &cli, tree));
            problems.extend(what.map(|what| format!("{path}:{}: {what}", index + 1)));
        }
    }
    let readme = tree.text("README.md").unwrap_or_default();
    if !readme.lines().any(|line| line.starts_with("cargo run ")) {
        problems.push("README.md: has no line that starts with `cargo run `, which .ci/run runs".to_owned());
    }
    problems
}

/// What is wrong with a command line.
fn fault(command: &str, cli: &Cli, tree: &Tree) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().skip_while(|w| w.contains('=') && !w.starts_with('-')).collect();
    let [program, rest @ ..] = &words[..] else { return None };
    match (program.rsplit('/').next()?, rest) {
        ("edgetool", _) => cli.fault(rest),
        ("cargo", ["xtask", arguments @ ..]) => xtask_fault(arguments),
        ("cargo", ["run", options @ ..]) => {
            let arguments = options.iter().position(|w| *w == "--").map_or(&[][..], |at| &options[at + 1..]);
            if options.contains(&"xtask") { xtask_fault(arguments) } else { cli.fault(arguments) }
        }
        ("python" | "python3", [script, arguments @ ..]) if !script.starts_with('-') => {
            let Some(text) = tree.text(script) else { return Some(format!("there is no `{script}`")) };
            let unknown = flags(arguments).find(|flag| !text.contains(&format!("\"{flag}\"")));
            unknown.map(|flag| format!("`{script}` has no `{flag}`"))
        }
        ("bash" | "sh", [script, ..]) if !script.starts_with('-') && !tree.has(script) => {
            Some(format!("there is no `{script}`"))
        }
        _ => None,
    }
}

fn xtask_fault(arguments: &[&str]) -> Option<String> {
    let name = arguments.first().copied().unwrap_or_default();
    let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
        return Some(format!("`cargo xtask` has no command `{name}`"));
    };
    let unknown = flags(arguments).find(|flag| !command.flags.contains(flag));
    unknown.map(|flag| format!("`cargo xtask {name}` has no `{flag}`"))
}

/// The flags among arguments, up to where the shell does something else.
fn flags<'a>(arguments: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let ours = arguments.iter().take_while(|word| !["|", "||", "&&", ";", ">", "#"].contains(*word));
    let is_flag = |word: &&str| word.starts_with('-') && word.chars().any(char::is_alphabetic);
    ours.copied().filter(is_flag).map(|word| word.split('=').next().unwrap_or(word))
}

/// Subcommands and their flags.
struct Cli(BTreeMap<String, BTreeSet<String>>);

impl Cli {
    /// Reads the variants of `enum Command` and the fields of the structs with their names.
    fn parse(source: &str) -> Self {
        let variants = body(source, "enum Command {").into_iter().filter_map(|line| line.split_once('('));
        let command = |(name, _): (&str, &str)| (kebab(name), flags_of(source, name));
        Self(variants.map(command).collect())
    }

    fn fault(&self, arguments: &[&str]) -> Option<String> {
        let first = arguments.first().copied().unwrap_or_default();
        if BUILT_IN.contains(&first) || first == "help" {
            return None;
        }
        let Some(known) = self.0.get(first) else { return Some(format!("edgetool has no subcommand `{first}`")) };
        let unknown = flags(arguments).find(|flag| !known.contains(*flag) && !BUILT_IN.contains(flag));
        unknown.map(|flag| format!("`edgetool {first}` has no `{flag}`"))
    }
}

/// The lines from behind `opening` to the brace that closes it.
fn body<'a>(source: &'a str, opening: &str) -> Vec<&'a str> {
    let lines = source.lines().map(str::trim).skip_while(|line| !line.ends_with(opening)).skip(1);
    lines.take_while(|line| *line != "}").collect()
}

/// The flags that clap derives from a struct's fields, and from those of structs that are flattened into it.
fn flags_of(source: &str, name: &str) -> BTreeSet<String> {
    let mut flags = BTreeSet::new();
    let mut attribute = String::new();
    let mut flattened = false;
    for line in body(source, &format!("struct {name} {{")) {
        if line == "#[command(flatten)]" {
            flattened = true;
        } else if flattened && let Some((_, inner)) = line.split_once(": ") {
            flags.extend(flags_of(source, inner.trim_end_matches(',')));
            flattened = false;
        } else if line.starts_with("#[arg(") || (!attribute.is_empty() && !line.contains("pub(crate)")) {
            attribute += line;
        } else if let Some((name, _)) = line.strip_prefix("pub(crate) ").and_then(|l| l.split_once(':')) {
            let inside = attribute.trim_start_matches("#[arg(").trim_end_matches(")]");
            for part in inside.split(',').map(str::trim) {
                let (key, value) = part.split_once('=').map_or((part, ""), |(k, v)| (k.trim(), v.trim()));
                let value = value.trim_matches(['"', '\'']);
                match (key, value.is_empty()) {
                    ("long", true) => flags.insert(format!("--{}", name.replace('_', "-"))),
                    ("long", false) => flags.insert(format!("--{value}")),
                    ("short", true) => flags.insert(format!("-{}", &name[..1])),
                    ("short", false) => flags.insert(format!("-{value}")),
                    _ => false,
                };
            }
            attribute.clear();
        }
    }
    flags
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (index, c) in name.chars().enumerate() {
        if c.is_uppercase() && index > 0 {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// First line and text of each command in the blocks marked `sh`; lines that end in `\` go on.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut commands: Vec<(usize, String)> = Vec::new();
    let mut in_block = false;
    let mut goes_on = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(mark) = line.strip_prefix("```") {
            in_block = !in_block && mark == "sh";
        } else if in_block {
            let bare = line.trim_end_matches('\\');
            match commands.last_mut().filter(|_| goes_on) {
                Some((_, command)) => *command += bare,
                None => commands.push((index + 1, bare.to_owned())),
            }
            goes_on = bare.len() < line.len();
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "crates/edgetool/src/cli.rs";
    const SOURCE: &str = r#"
pub(crate) enum Command {
    Run(Run),
    PackUp(PackUp),
}
pub(crate) struct Run {
    /// A model
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[arg(
        long = "size",
        value_parser = f(1, 2)
    )]
    pub(crate) image_size: usize,
}
const EXAMPLES: &str = "Examples:
  edgetool run model --fast";
pub(crate) struct PackUp {
    #[arg(short = 'q', long)]
    pub(crate) not_loud: bool,
    #[command(flatten)]
    pub(crate) more: More,
}
pub(crate) struct More {
    #[arg(long)]
    pub(crate) steps: usize,
}
"#;

    fn faults(lines: &str) -> Vec<String> {
        let readme = format!("```sh\ncargo run -- run m\n{lines}\n```\n```text\nedgetool nothing\n```\n");
        let script = ("tests/a.py", "add_argument(\"--work\")");
        let source = SOURCE.replace("--fast", "--size 3");
        check(&Tree::of(&[("README.md", &readme), (FILE, &source), script]))
    }

    #[test]
    fn good_commands_pass() {
        let good = "edgetool run m -o a.png --size=3 | head -1\nA=b target/release/edgetool pack-up \\\n  -q --not-loud --steps 2\nedgetool --version\ncargo xtask codegen --check\npython tests/a.py --work x\ncargo build --release";
        assert_eq!(faults(good), [""; 0]);
    }

    #[test]
    fn what_does_not_exist_is_named() {
        for (line, expected) in [
            ("edgetool draw", "README.md:3: edgetool has no subcommand `draw`"),
            ("edgetool run m \\\n  --image-size 3", "README.md:3: `edgetool run` has no `--image-size`"),
            ("cargo run --release -- pack-up -o x", "README.md:3: `edgetool pack-up` has no `-o`"),
            ("cargo xtask deploy", "README.md:3: `cargo xtask` has no command `deploy`"),
            ("cargo xtask tidy --fix", "README.md:3: `cargo xtask tidy` has no `--fix`"),
            ("python tests/b.py", "README.md:3: there is no `tests/b.py`"),
            ("python tests/a.py --play", "README.md:3: `tests/a.py` has no `--play`"),
            ("bash .ci/walk", "README.md:3: there is no `.ci/walk`"),
        ] {
            assert_eq!(faults(line), [expected]);
        }
    }

    #[test]
    fn examples_of_the_help_and_the_first_command_are_read() {
        let tree = Tree::of(&[("README.md", "nothing"), (FILE, SOURCE)]);
        assert_eq!(
            check(&tree),
            [
                format!("{FILE}:19: `edgetool run` has no `--fast`"),
                "README.md: has no line that starts with `cargo run `, which .ci/run runs".to_owned(),
            ]
        );
    }
}
