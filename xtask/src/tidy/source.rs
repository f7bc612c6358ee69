//! Rust files as rules read them: the lines of code, without comments and without tests.

/// Numbers and texts of the lines that are neither comment nor test.
pub(super) fn code<'a>(path: &str, text: &'a str) -> Vec<(usize, &'a str)> {
    if is_test(path) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    let mut after_cfg = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("#[cfg(test)]") {
            after_cfg = true;
        } else if after_cfg && trimmed.starts_with("mod ") && trimmed.ends_with('{') {
            // Tests are the last item of a file.
            break;
        } else if !trimmed.starts_with("#[") {
            let is_declaration = after_cfg && trimmed.starts_with("mod ");
            after_cfg = false;
            if !is_declaration {
                lines.push((index + 1, without_comment(line)));
            }
        }
    }
    lines
}

/// Whether a line names this word: `prost` is in `prost::Message`, and not in `prostrate`.
pub(super) fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_part);
        let open = word.ends_with(|c: char| !is_part(c)) || word.ends_with('_');
        let after = line[at + word.len()..].chars().next().is_some_and(is_part);
        !before && (open || !after)
    })
}

/// Whether the file holds tests only.
fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("/testing.rs")
}

fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_tests_are_no_code() {
        let text = "//! Doc.\n#[cfg(test)]\nmod testing;\nfn f() {} // note\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n  g();\n}\n";
        assert_eq!(code("crates/a/src/lib.rs", text), [(1, ""), (4, "fn f() {} ")]);
        assert_eq!(code("crates/a/tests/a.rs", text), []);
        assert_eq!(without_comment("\"https://a.b\""), "\"https://a.b\"");
    }

    #[test]
    fn words_are_whole() {
        let found = ["use prost::M;", "prostrate", "a_prost", "tract_onnx::x", "subtract_onnx"];
        assert_eq!(found.map(|line| names(line, "prost")), [true, false, false, false, false]);
        assert_eq!(found.map(|line| names(line, "tract_")), [false, false, false, true, false]);
    }
}
