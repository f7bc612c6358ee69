//! Names in a bundle: what can be made as a file below a folder on any system, and nothing else.

/// The longest name, in bytes.
const LONGEST: usize = 200;

/// Why a name is refused, if it is.
pub(super) fn fault(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+=@/".contains(c);
    if name.is_empty() {
        return Some("is empty".to_owned());
    }
    if name.len() > LONGEST {
        return Some(format!("has {} bytes, at most {LONGEST}", name.len()));
    }
    if name.starts_with('/') {
        return Some("is absolute".to_owned());
    }
    if name.ends_with('/') {
        return Some("is a folder's, expected files alone".to_owned());
    }
    if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        return Some(format!("has the character {c:?}, expected letters, digits, and any of `._-+=@/`"));
    }
    let part = name.split('/').find(|part| part.is_empty() || part.trim_end_matches('.').is_empty())?;
    Some(format!("has the part `{part}`, which leads elsewhere"))
}

/// Why these names, in order, cannot stand together: twice the same, also as systems see it that do not tell capitals
/// apart, or a file that would be a folder of another.
pub(super) fn clash(names: &[&str]) -> Option<String> {
    let mut folded: Vec<(String, &str)> = names.iter().map(|name| (name.to_ascii_lowercase(), *name)).collect();
    folded.sort();
    if let Some([(_, a), (_, b)]) = folded.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Some(if a == b { format!("`{a}` is there twice") } else { format!("`{a}` and `{b}` are one file") });
    }
    // A name's folder stands somewhere before it; between them is only what begins with the folder's name.
    folded.iter().find_map(|(lower, name)| {
        let mut parents = lower.match_indices('/').map(|(at, _)| &lower[..at]);
        let file = |parent: &str| folded.binary_search_by(|(other, _)| other.as_str().cmp(parent)).ok();
        let index = parents.find_map(file)?;
        Some(format!("`{}` is a file, and the folder of `{name}`", folded[index].1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_their_folder() {
        for good in ["a", "model/unet/model.onnx_data", "golden/0/x.raw", "a..b", "-", "a/.b"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for (bad, why) in [
            ("", "is empty"),
            ("/etc/passwd", "is absolute"),
            ("../x", "has the part `..`, which leads elsewhere"),
            ("a/../../x", "has the part `..`, which leads elsewhere"),
            ("a/./x", "has the part `.`, which leads elsewhere"),
            ("a//x", "has the part ``, which leads elsewhere"),
            ("a/", "is a folder's, expected files alone"),
            ("C:x", "has the character ':', expected letters, digits, and any of `._-+=@/`"),
            ("a\\..\\x", "has the character '\\\\', expected letters, digits, and any of `._-+=@/`"),
            ("a\0", "has the character '\\0', expected letters, digits, and any of `._-+=@/`"),
            ("ä", "has the character 'ä', expected letters, digits, and any of `._-+=@/`"),
        ] {
            assert_eq!(fault(bad).as_deref(), Some(why), "{bad}");
        }
        assert_eq!(fault(&"x".repeat(201)).as_deref(), Some("has 201 bytes, at most 200"));
    }

    #[test]
    fn names_do_not_meet() {
        assert_eq!(clash(&["a", "a-b", "a.b/c", "b"]), None);
        assert_eq!(clash(&["a", "a"]).as_deref(), Some("`a` is there twice"));
        assert_eq!(clash(&["A/x", "a/X"]).as_deref(), Some("`A/x` and `a/X` are one file"));
        assert_eq!(clash(&["a", "a-b", "a/b/c"]).as_deref(), Some("`a` is a file, and the folder of `a/b/c`"));
    }
}
