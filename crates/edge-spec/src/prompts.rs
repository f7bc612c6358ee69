//! Prompt files: a prompt a line, and, after a tab, what its picture has to show.

use std::collections::BTreeMap;
use std::path::Path;

use crate::SpecError;

/// A prompt, and what its picture has to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The prompt.
    pub text: String,
    /// Attributes and their values, as a judge names them; empty where the file says nothing.
    pub truth: BTreeMap<String, String>,
}

impl Prompt {
    /// Reads a file of lines `PROMPT` or `PROMPT<tab>key=value; key=value`. Empty lines are skipped.
    ///
    /// # Errors
    /// If the file cannot be read, has no prompt, or a line has something else after its tab.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, SpecError> {
        let text = std::fs::read_to_string(path).map_err(|source| SpecError::Io { path: path.to_owned(), source })?;
        let invalid = |reason: String| SpecError::Invalid { path: path.to_owned(), what: "list of prompts", reason };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let prompts: Vec<_> = lines
            .map(|(index, line)| parse(line).map_err(|reason| invalid(format!("line {}: {reason}", index + 1))))
            .collect::<Result<_, _>>()?;
        if prompts.is_empty() { Err(invalid("it has no line".into())) } else { Ok(prompts) }
    }
}

fn parse(line: &str) -> Result<Prompt, String> {
    let (text, truth) = line.split_once('\t').unwrap_or((line, ""));
    let text = text.trim();
    if text.is_empty() {
        return Err("expected a prompt before the tab".into());
    }
    let pairs = truth.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    let truth = pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("expected `key=value`, got `{pair}`"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect::<Result<_, String>>()?;
    Ok(Prompt { text: text.to_owned(), truth })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Prompt>, String> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("prompts.txt");
        std::fs::write(&path, text).expect("write");
        Prompt::read_all(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_prompt_may_say_what_its_picture_shows() {
        let prompts = read("a cat\n\n a red ring\tshape=ring; color=red\n").expect("prompts");
        let truth = [("color", "red"), ("shape", "ring")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(
            prompts,
            [
                Prompt { text: "a cat".into(), truth: BTreeMap::new() },
                Prompt { text: "a red ring".into(), truth: truth.into() }
            ]
        );
    }

    #[test]
    fn what_is_no_prompt_is_named_by_its_line() {
        assert_eq!(
            read("a cat\na ring\tred\n"),
            Err("`FILE` is not a list of prompts: line 2: expected `key=value`, got `red`".into())
        );
        assert_eq!(
            read("\tshape=ring"),
            Err("`FILE` is not a list of prompts: line 1: expected a prompt before the tab".into())
        );
        assert_eq!(read("\n"), Err("`FILE` is not a list of prompts: it has no line".into()));
    }
}
