//! From a prompt to the token ids that CLIP's text encoder takes.
//!
//! The ids are those of transformers' fast `CLIPTokenizer`: normalization form C, white space runs to
//! one space, lower case character by character, words cut by CLIP's pattern, byte-level pair encoding
//! with `</w>` at the end of a word. A folder gives the tokenizer as `tokenizer.json`, or as
//! `vocab.json` and `merges.txt`, from which the same steps are built.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// Where CLIP cuts a prompt into words; what is between the matches is dropped.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// Longer rows than any text encoder takes; transformers writes 10³⁰ for "no limit".
const LONGEST_ROW: u64 = 65_536;

/// A prompt as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The ids of one row: begin, prompt, end, padding.
    pub ids: Vec<i64>,
    /// How many of the ids are not padding.
    pub tokens_used: usize,
    /// Whether the end of the prompt did not fit.
    pub truncated: bool,
}

/// CLIP's tokenizer, with the row length and special tokens of its folder.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    row: usize,
    begin: u32,
    end: u32,
    padding: u32,
}

/// Why a folder's tokenizer cannot be used, or a prompt not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file is missing or cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not JSON.
    #[error("cannot parse `{}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The folder has no vocabulary.
    #[error("`{}`: expected `tokenizer.json`, or `vocab.json` and `merges.txt`, found neither", folder.display())]
    NoVocabulary {
        /// The folder.
        folder: PathBuf,
    },
    /// A file does not say what it must.
    #[error("`{}`: `{key}`: expected {expected}, found {found}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, or the line.
        key: String,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A special token has no id.
    #[error("`{}`: expected the `{role}` `{token}` in the vocabulary, found none", path.display())]
    UnknownToken {
        /// The file with the vocabulary.
        path: PathBuf,
        /// Which special token.
        role: &'static str,
        /// Its text.
        token: String,
    },
    /// The tokenizer frames prompts in another way than CLIP.
    #[error("`{}`: expected an empty prompt to give {expected:?} (begin, end), found {found:?}", path.display())]
    Frame {
        /// The file.
        path: PathBuf,
        /// The ids of the folder's special tokens.
        expected: [u32; 2],
        /// The ids of an empty prompt.
        found: Vec<u32>,
    },
    /// The tokenizer library does not accept a file.
    #[error("cannot build a tokenizer from `{}`", path.display())]
    Build {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        source: tokenizers::Error,
    },
    /// The tokenizer library does not accept a prompt.
    #[error("cannot tokenize the prompt")]
    Encode(#[source] tokenizers::Error),
}

impl Tokenizer {
    /// Reads the `tokenizer` folder of a diffusers model.
    ///
    /// `tokenizer.json` is taken if there, else `vocab.json` and `merges.txt`. The row length
    /// (`model_max_length`) comes from `tokenizer_config.json`, the special tokens from there or from
    /// `special_tokens_map.json`. Fails, naming the file, where one of these is missing or not CLIP's.
    pub fn from_folder(dir: &Path) -> Result<Self, TokenizerError> {
        let settings = Settings::read(dir)?;
        let whole = dir.join("tokenizer.json");
        let vocabulary = dir.join("vocab.json");
        if whole.exists() {
            let mut inner = tokenizers::Tokenizer::from_bytes(read(&whole)?).map_err(build_error(&whole))?;
            // Rows are cut and padded here, whatever the file says.
            inner.with_truncation(None).map_err(build_error(&whole))?.with_padding(None);
            let tokenizer = Self::with_settings(inner, &settings, &whole)?;
            tokenizer.check_frame(&whole)?;
            return Ok(tokenizer);
        }
        let merges = dir.join("merges.txt");
        if !vocabulary.exists() && !merges.exists() {
            return Err(TokenizerError::NoVocabulary { folder: dir.to_owned() });
        }
        let inner = build(&vocabulary, &merges, &settings)?;
        Self::with_settings(inner, &settings, &vocabulary)
    }

    /// The ids of `prompt`: begin, the prompt's tokens as far as they fit, end, then padding up to the
    /// row length.
    pub fn encode(&self, prompt: &str) -> Result<Encoded, TokenizerError> {
        let encoding = self.inner.encode_fast(prompt, false).map_err(TokenizerError::Encode)?;
        let tokens = encoding.get_ids();
        let room = self.row - 2;
        let fitting = &tokens[..tokens.len().min(room)];
        let mut ids = Vec::with_capacity(self.row);
        ids.push(i64::from(self.begin));
        ids.extend(fitting.iter().map(|id| i64::from(*id)));
        ids.push(i64::from(self.end));
        let tokens_used = ids.len();
        ids.resize(self.row, i64::from(self.padding));
        Ok(Encoded { ids, tokens_used, truncated: tokens.len() > room })
    }

    fn with_settings(inner: tokenizers::Tokenizer, settings: &Settings, path: &Path) -> Result<Self, TokenizerError> {
        let id = |role, token: &Special| {
            inner.token_to_id(&token.content).ok_or_else(|| TokenizerError::UnknownToken {
                path: path.to_owned(),
                role,
                token: token.content.clone(),
            })
        };
        let begin = id("bos_token", &settings.begin)?;
        let end = id("eos_token", &settings.end)?;
        let padding = id("pad_token", &settings.padding)?;
        Ok(Self { inner, row: settings.row, begin, end, padding })
    }

    /// A file whose post-processor adds other tokens is not CLIP's.
    fn check_frame(&self, path: &Path) -> Result<(), TokenizerError> {
        let empty = self.inner.encode_fast("", true).map_err(build_error(path))?;
        let expected = [self.begin, self.end];
        if empty.get_ids() == expected {
            return Ok(());
        }
        Err(TokenizerError::Frame { path: path.to_owned(), expected, found: empty.get_ids().to_vec() })
    }
}

/// A special token of the folder.
struct Special {
    content: String,
    /// Whether it is looked for after the prompt is lower case, rather than before.
    normalized: bool,
}

/// What the folder says beside the vocabulary.
struct Settings {
    row: usize,
    begin: Special,
    end: Special,
    padding: Special,
    unknown: Option<Special>,
}

impl Settings {
    fn read(dir: &Path) -> Result<Self, TokenizerError> {
        let config = JsonFile::read(dir.join("tokenizer_config.json"))?;
        let map = dir.join("special_tokens_map.json");
        let map = if map.exists() { Some(JsonFile::read(map)?) } else { None };
        let special = |role: &str| match config.special(role)? {
            None => map.as_ref().map_or(Ok(None), |map| map.special(role)),
            found => Ok(found),
        };
        let required = |role: &str| special(role)?.ok_or_else(|| config.wrong(role, "a token", "none"));
        config.check_class()?;
        Ok(Self {
            row: config.row()?,
            begin: required("bos_token")?,
            end: required("eos_token")?,
            padding: required("pad_token")?,
            unknown: special("unk_token")?,
        })
    }
}

struct JsonFile {
    path: PathBuf,
    value: Value,
}

impl JsonFile {
    fn read(path: PathBuf) -> Result<Self, TokenizerError> {
        let bytes = read(&path)?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Self { path, value }),
            Err(source) => Err(TokenizerError::Json { path, source }),
        }
    }

    fn wrong(&self, key: &str, expected: &'static str, found: &(impl Display + ?Sized)) -> TokenizerError {
        TokenizerError::Value { path: self.path.clone(), key: key.to_owned(), expected, found: found.to_string() }
    }

    /// `vocab.json` and `merges.txt` are also the files of other tokenizers, such as GPT-2's.
    fn check_class(&self) -> Result<(), TokenizerError> {
        match self.value.get("tokenizer_class") {
            None => Ok(()),
            Some(class) if class == "CLIPTokenizer" || class == "CLIPTokenizerFast" => Ok(()),
            Some(class) => Err(self.wrong("tokenizer_class", "`CLIPTokenizer` or `CLIPTokenizerFast`", class)),
        }
    }

    fn row(&self) -> Result<usize, TokenizerError> {
        let key = "model_max_length";
        let expected = "an integer from 2 to 65536";
        let value = self.value.get(key).ok_or_else(|| self.wrong(key, expected, "nothing"))?;
        let row = value.as_u64().filter(|row| (2..=LONGEST_ROW).contains(row));
        row.and_then(|row| usize::try_from(row).ok()).ok_or_else(|| self.wrong(key, expected, value))
    }

    /// A special token: its text, or an object with the text in `content`.
    fn special(&self, role: &str) -> Result<Option<Special>, TokenizerError> {
        let (content, normalized) = match self.value.get(role) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(content)) => (content, None),
            Some(object) => match object.get("content") {
                Some(Value::String(content)) => (content, object.get("normalized").and_then(Value::as_bool)),
                _ => {
                    return Err(self.wrong(role, "a string, or an object with a string `content`", object));
                }
            },
        };
        let normalized = self.normalized(content).or(normalized).unwrap_or(false);
        Ok(Some(Special { content: content.clone(), normalized }))
    }

    /// What `added_tokens_decoder` says of a token; it goes before the token's own object.
    fn normalized(&self, content: &str) -> Option<bool> {
        let decoder = self.value.get("added_tokens_decoder")?.as_object()?;
        let token = decoder.values().find(|token| token["content"] == content)?;
        token.get("normalized").and_then(Value::as_bool)
    }
}

/// Builds CLIP's steps around a vocabulary and its merges.
fn build(vocabulary: &Path, merges: &Path, settings: &Settings) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let mut model = BPE::builder()
        .vocab_and_merges(read_vocabulary(vocabulary)?, read_merges(merges)?)
        .end_of_word_suffix("</w>".to_owned());
    if let Some(unknown) = &settings.unknown {
        model = model.unk_token(unknown.content.clone());
    }
    let mut tokenizer = tokenizers::Tokenizer::new(model.build().map_err(build_error(merges))?);
    let space = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(build_error(vocabulary))?;
    tokenizer.with_normalizer(Some(Normalizers::new(vec![NFC.into(), space.into(), Lowercase.into()])));
    let words = SplitPattern::Regex(WORDS.to_owned());
    let words = Split::new(words, SplitDelimiterBehavior::Removed, true).map_err(build_error(vocabulary))?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    let mut specials: Vec<AddedToken> = Vec::new();
    let all = [Some(&settings.begin), Some(&settings.end), settings.unknown.as_ref(), Some(&settings.padding)];
    for special in all.into_iter().flatten() {
        // The first to name a token says how it is looked for.
        if specials.iter().all(|token| token.content != special.content) {
            specials.push(AddedToken::from(special.content.clone(), true).normalized(special.normalized));
        }
    }
    tokenizer.add_special_tokens(&specials);
    Ok(tokenizer)
}

fn read_vocabulary(path: &Path) -> Result<Vocab, TokenizerError> {
    let file = JsonFile::read(path.to_owned())?;
    let Some(entries) = file.value.as_object() else {
        return Err(file.wrong("/", "an object from token to id", "another value"));
    };
    let ids = entries.iter().map(|(token, id)| {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        number.map(|id| (token.clone(), id)).ok_or_else(|| file.wrong(token, "an id", id))
    });
    ids.collect()
}

fn read_merges(path: &Path) -> Result<Vec<(String, String)>, TokenizerError> {
    let text = String::from_utf8(read(path)?).map_err(|error| TokenizerError::Value {
        path: path.to_owned(),
        key: format!("byte {}", error.utf8_error().valid_up_to()),
        expected: "UTF-8",
        found: "other bytes".to_owned(),
    })?;
    let version = |i: usize, line: &str| i == 0 && line.starts_with("#version");
    let lines = text.split('\n').map(|line| line.trim_end_matches('\r')).enumerate();
    let rules = lines.filter(|(i, line)| !line.is_empty() && !version(*i, line));
    let pairs = rules.map(|(i, line)| match line.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err(TokenizerError::Value {
            path: path.to_owned(),
            key: format!("line {}", i + 1),
            expected: "two symbols with a space between",
            found: format!("`{line}`"),
        }),
    });
    pairs.collect()
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    fs::read(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })
}

fn build_error<E: Into<tokenizers::Error>>(path: &Path) -> impl Fn(E) -> TokenizerError {
    let path = path.to_owned();
    move |source| TokenizerError::Build { path: path.clone(), source: source.into() }
}
