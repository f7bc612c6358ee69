//! Links between documents.

use super::tree::Tree;

/// A relative link leads to a file or folder of the repository.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.texts(".md") {
        for (line, target) in targets(text) {
            let bare = target.split('#').next().unwrap_or_default();
            let is_local = !target.contains("://") && !target.starts_with("mailto:") && !bare.is_empty();
            if is_local && !resolve(path, bare).is_some_and(|place| tree.has(&place)) {
                problems.push(format!("{path}:{line}: the link `{target}` leads nowhere"));
            }
        }
    }
    problems
}

/// Line and target of each link outside of code blocks.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let after = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
            found.extend(after.filter_map(|rest| Some((index + 1, rest.split_once(')')?.0))));
        }
    }
    found
}

/// The target as a path from the root; `None` if it leads out of the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_link_is_named() {
        let text = "[a](b.md) [web](https://a.b/c) [here](#x)\n```sh\n[x](y)\n```\n[up](../README.md#top) [c](c.md), [d](../../x)\n";
        let tree = Tree::of(&[("README.md", ""), ("docs/a.md", text), ("docs/b.md", "")]);
        assert_eq!(
            check(&tree),
            ["docs/a.md:5: the link `c.md` leads nowhere", "docs/a.md:5: the link `../../x` leads nowhere"]
        );
    }
}
