//! Names that only some files may use.

use super::source::{code, names as line_names};
use super::tree::Tree;

/// A name, the paths that may use it, and what it is.
struct Place {
    word: &'static str,
    allowed: &'static [&'static str],
    what: &'static str,
}

const PLACES: &[Place] = &[
    Place { word: "prost", allowed: &["crates/edge-ir/src/onnx/", "xtask/"], what: "protobuf" },
    Place { word: "proto::", allowed: &["crates/edge-ir/src/onnx/"], what: "protobuf" },
    Place { word: "tract_", allowed: &["crates/edge-run/"], what: "tract" },
    Place { word: "std::net", allowed: &[], what: "the network" },
    Place { word: "TcpStream", allowed: &[], what: "the network" },
    Place { word: "UdpSocket", allowed: &[], what: "the network" },
];

/// What a program does and a library does not.
const SIDE_EFFECTS: &[&str] =
    &["println!", "eprintln!", "print!", "eprint!", "dbg!", "process::exit", "std::env", "env::var", "env::var_os"];

/// Where side effects are at home.
const PROGRAMS: &[&str] = &["crates/edgetool/", "xtask/"];

/// Foreign libraries, and the network, are named in their places.
pub(super) fn names(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    each_line(tree, |path, number, line| {
        // This file and its neighbours name everything, as texts.
        if path.starts_with("xtask/src/tidy/") {
            return;
        }
        for Place { word, allowed, what } in PLACES {
            if line_names(line, word) && !is_below(path, allowed) {
                let places = if allowed.is_empty() {
                    "nothing may".to_owned()
                } else {
                    format!("only {} may", allowed.join(", "))
                };
                problems.push(format!("{path}:{number}: `{word}` names {what}, which {places}"));
            }
        }
    });
    problems
}

/// Libraries have arguments and results.
pub(super) fn side_effects(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    each_line(tree, |path, number, line| {
        let word = SIDE_EFFECTS.iter().find(|word| line_names(line, word));
        if let Some(word) = word.filter(|_| !is_below(path, PROGRAMS)) {
            problems.push(format!("{path}:{number}: `{word}` in a library: return it, or take it as an argument"));
        }
    });
    problems
}

fn each_line(tree: &Tree, mut look: impl FnMut(&str, usize, &str)) {
    for (path, text) in tree.texts(".rs") {
        for (number, line) in code(path, text) {
            look(path, number, line);
        }
    }
}

fn is_below(path: &str, folders: &[&str]) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_wrong_place_is_named() {
        let tree = Tree::of(&[
            ("crates/edge-ir/src/onnx/read.rs", "use prost::Message;\nuse super::proto::X;\n"),
            ("crates/edge-ir/src/graph.rs", "//! No prost.\nuse prost::Message;\n"),
            ("crates/edge-run/src/lib.rs", "use tract_onnx::prelude;\n"),
            ("crates/edgetool/src/main.rs", "use tract_onnx::prelude;\nuse std::net::TcpListener;\n"),
        ]);
        assert_eq!(
            names(&tree),
            [
                "crates/edge-ir/src/graph.rs:2: `prost` names protobuf, which only crates/edge-ir/src/onnx/, xtask/ may",
                "crates/edgetool/src/main.rs:1: `tract_` names tract, which only crates/edge-run/ may",
                "crates/edgetool/src/main.rs:2: `std::net` names the network, which nothing may",
            ]
        );
    }

    #[test]
    fn a_side_effect_of_a_library_is_named() {
        let library = "fn f() {\n    println!();\n    std::process::exit(1);\n}\n#[cfg(test)]\nmod tests {\n    use std::env;\n}\n";
        let tree = Tree::of(&[
            ("crates/edge-ir/src/lib.rs", library),
            ("crates/edge-ir/tests/a.rs", library),
            ("crates/edgetool/src/main.rs", library),
        ]);
        assert_eq!(
            side_effects(&tree),
            [
                "crates/edge-ir/src/lib.rs:2: `println!` in a library: return it, or take it as an argument",
                "crates/edge-ir/src/lib.rs:3: `process::exit` in a library: return it, or take it as an argument",
            ]
        );
    }
}
