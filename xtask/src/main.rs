//! Development commands, run as `cargo xtask NAME`: one file each, listed in [`COMMANDS`].

mod ci;
mod codegen;
mod steps;
mod test;
mod tidy;

use anyhow::{Result, bail};

/// A command of `cargo xtask`.
struct Command {
    name: &'static str,
    /// Flags that it takes; none takes a value.
    flags: &'static [&'static str],
    about: &'static str,
    run: fn(flags: &[String]) -> Result<()>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "test",
        flags: &[],
        about: "run all Rust tests; installs and downloads nothing but crates",
        run: test::run,
    },
    Command {
        name: "ci",
        flags: &[],
        about: "format, tidy, clippy, tests and documentation; stops at the first error",
        run: ci::run,
    },
    Command {
        name: "tidy",
        flags: &[],
        about: "the rules of ARCHITECTURE.md that no compiler checks",
        run: |_| tidy::run(),
    },
    Command {
        name: "codegen",
        flags: &["--check"],
        about: "write the protobuf types of ONNX; with --check, only say whether they are fresh",
        run: |flags| codegen::run(!flags.is_empty()),
    },
];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let command = args.first().and_then(|name| COMMANDS.iter().find(|c| c.name == name));
    match command {
        Some(command) if args[1..].iter().all(|a| command.flags.contains(&a.as_str())) => (command.run)(&args[1..]),
        _ => bail!("usage: cargo xtask COMMAND\n{}", usage()),
    }
}

fn usage() -> String {
    let line = |c: &Command| format!("\n  {:<18} {}", format!("{} {}", c.name, c.flags.join(" ")), c.about);
    COMMANDS.iter().map(line).collect()
}
