//! `cargo xtask tidy`: the rules of ARCHITECTURE.md and CONTRIBUTING.md that no compiler checks.
//!
//! A rule is a row of [`RULES`] and a function from the [`Tree`] to what breaks it, as `path:line: what is wrong`. Every
//! rule has a test with an input that breaks it.

mod commands;
mod layers;
mod links;
mod places;
mod sizes;
mod source;
mod tree;

use anyhow::{Result, bail};

use crate::{codegen, steps};
use tree::Tree;

/// A rule.
struct Rule {
    /// What holds.
    says: &'static str,
    /// What breaks it.
    check: fn(&Tree) -> Vec<String>,
}

const RULES: &[Rule] = &[
    Rule { says: "every Rust file opens with `//!`", check: sizes::openings },
    Rule { says: "a Rust file has at most 600 lines", check: sizes::file_lines },
    Rule { says: "all Rust files together are short enough to be known", check: sizes::tree_lines },
    Rule { says: "the lock file has at most 270 packages", check: sizes::packages },
    Rule { says: "no file is over 5 MiB", check: sizes::bytes },
    Rule { says: "crates depend on those below them", check: layers::directions },
    Rule { says: "a library has the crates that it alone knows", check: layers::owners },
    Rule { says: "no dependency is a network client", check: layers::network },
    Rule { says: "code names protobuf, tract and sockets where it may", check: places::names },
    Rule { says: "libraries do not print, exit or read the environment", check: places::side_effects },
    Rule { says: "ARCHITECTURE.md names every crate", check: layers::described },
    Rule { says: "links between documents lead somewhere", check: links::check },
    Rule { says: "commands in documents exist, with their flags", check: commands::check },
];

/// Checks all rules and lists what breaks them.
pub(crate) fn run() -> Result<()> {
    steps::heading("cargo xtask tidy");
    let tree = Tree::read(&steps::root())?;
    let mut count = 0;
    for Rule { says, check } in RULES {
        count += report(says, &check(&tree));
    }
    let stale: Vec<_> = codegen::stale()?.into_iter().collect();
    count += report("generated code is fresh", &stale);
    match count {
        0 => Ok(()),
        n => bail!("tidy: {n} to mend"),
    }
}

fn report(says: &str, problems: &[String]) -> usize {
    steps::say(format!("{} {says}", if problems.is_empty() { "ok  " } else { "FAIL" }));
    for problem in problems {
        steps::say(format!("     {problem}"));
    }
    problems.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_obeys() {
        let tree = Tree::read(&steps::root()).expect("the workspace");
        let problems: Vec<String> = RULES.iter().flat_map(|rule| (rule.check)(&tree)).collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }
}
