//! Budgets, and the first line of a file.

use super::tree::Tree;
use crate::codegen::PROTO_RS;

/// Lines of a Rust file.
const FILE_LINES: usize = 600;
/// Lines of a Rust file that is listed in [`LONG_FILES`].
const LONG_FILE_LINES: usize = 800;
/// Files that may have more than [`FILE_LINES`], each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];
/// Lines of all Rust files, generated ones too.
const TREE_LINES: usize = 54_000;
/// Packages in `Cargo.lock`.
const PACKAGES: usize = 285;
/// Bytes of any file.
const FILE_BYTES: u64 = 5 << 20;

/// Every Rust file says what it is.
pub(super) fn openings(tree: &Tree) -> Vec<String> {
    let silent = tree.texts(".rs").filter(|(_, text)| !text.starts_with("//! "));
    silent.map(|(path, _)| format!("{path}:1: must open with a line `//! ...` that says what the file is")).collect()
}

/// Files are short enough to be read whole.
pub(super) fn file_lines(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.texts(".rs").filter(|(path, _)| *path != PROTO_RS) {
        let is_long = LONG_FILES.iter().any(|(long, _)| *long == path);
        let (lines, limit) = (text.lines().count(), if is_long { LONG_FILE_LINES } else { FILE_LINES });
        if lines > limit {
            problems.push(format!("{path}: has {lines} lines, at most {limit}: split it by what it is about"));
        }
    }
    problems
}

/// The whole is small enough to be known.
pub(super) fn tree_lines(tree: &Tree) -> Vec<String> {
    let lines: usize = tree.texts(".rs").map(|(_, text)| text.lines().count()).sum();
    over("all Rust files", lines, TREE_LINES, "lines")
}

/// Dependencies are few.
pub(super) fn packages(tree: &Tree) -> Vec<String> {
    let count = tree.text("Cargo.lock").unwrap_or_default().lines().filter(|line| *line == "[[package]]").count();
    over("Cargo.lock", count, PACKAGES, "packages")
}

/// A clone is quick.
pub(super) fn bytes(tree: &Tree) -> Vec<String> {
    let large = tree.files().filter(|file| file.size > FILE_BYTES);
    large.map(|f| format!("{}: has {} bytes, at most {FILE_BYTES}: make it by a script", f.path, f.size)).collect()
}

fn over(what: &str, count: usize, limit: usize, unit: &str) -> Vec<String> {
    if count > limit { vec![format!("{what}: {count} {unit}, at most {limit}")] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_opening_is_named() {
        let tree = Tree::of(&[("a.rs", "//! A.\n"), ("b.rs", "use x;\n//! B.\n"), ("c.md", "C")]);
        assert_eq!(openings(&tree), ["b.rs:1: must open with a line `//! ...` that says what the file is"]);
    }

    #[test]
    fn a_long_file_is_named() {
        let (good, long) = ("//\n".repeat(FILE_LINES), "//\n".repeat(FILE_LINES + 1));
        let tree = Tree::of(&[("a.rs", &good), ("b.rs", &long), (PROTO_RS, &long)]);
        assert_eq!(file_lines(&tree), ["b.rs: has 601 lines, at most 600: split it by what it is about"]);
    }

    #[test]
    fn totals_are_counted() {
        let half = "//\n".repeat(TREE_LINES / 2 + 1);
        let lock = "[[package]]\n".repeat(PACKAGES + 1);
        let tree = Tree::of(&[("a.rs", &half), ("b.rs", &half), ("Cargo.lock", &lock)]);
        assert_eq!(tree_lines(&tree), [format!("all Rust files: {} lines, at most {TREE_LINES}", TREE_LINES + 2)]);
        assert_eq!(packages(&tree), ["Cargo.lock: 286 packages, at most 285"]);
    }

    #[test]
    fn a_large_file_is_named() {
        let large = "x".repeat((5 << 20) + 1);
        let tree = Tree::of(&[("a.bin", &large), ("b.bin", &large[1..])]);
        assert_eq!(bytes(&tree), ["a.bin: has 5242881 bytes, at most 5242880: make it by a script"]);
    }
}
