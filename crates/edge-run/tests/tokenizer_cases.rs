//! `Tokenizer` against transformers' CLIP tokenizer on 3,000 prompts, from both kinds of folder, and
//! the refusals of folders that are not CLIP's.
//!
//! The prompts and ids are made by `tests/reference/make_tokenizer_cases.py`. The folders are written
//! here from CLIP's merge list, from which its vocabulary follows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Display;
use std::fs;
use std::io::Read;
use std::path::Path;

use edge_run::tokenizer::{Encoded, Tokenizer};
use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const MERGES: &[u8] = include_bytes!("data/clip_merges.txt.gz");
const CASES: &[u8] = include_bytes!("data/tokenizer_cases.json.gz");
/// CLIP's `tokenizer.json` without vocabulary and merges.
const TEMPLATE: &str = include_str!("data/clip_tokenizer.json");

/// From `vocab.json`, the special tokens of published folders are looked for in the lower-case prompt,
/// so that this one prompt is a special token; from `tokenizer.json` they are looked for before, and it
/// is plain text. transformers has the same difference.
const SHOUTED_SPECIAL: &str = "<|STARTOFTEXT|>";

fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

/// GPT-2's printable characters for the 256 bytes, in CLIP's order.
fn byte_symbols() -> Vec<String> {
    let printable = |b: &u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let kept: Vec<u32> = (0..256).filter(printable).collect();
    let moved = 256..512 - u32::try_from(kept.len()).unwrap();
    kept.into_iter().chain(moved).map(|c| char::from_u32(c).unwrap().to_string()).collect()
}

fn vocabulary(merges: &str) -> Map<String, Value> {
    let symbols = byte_symbols();
    let ends = symbols.iter().map(|symbol| format!("{symbol}</w>"));
    let merged = merges.lines().map(|line| line.replace(' ', ""));
    let specials = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let tokens = symbols.iter().cloned().chain(ends).chain(merged).chain(specials);
    tokens.enumerate().map(|(id, token)| (token, json!(id))).collect()
}

fn special(content: &str) -> Value {
    json!({"__type": "AddedToken", "content": content, "lstrip": false, "normalized": true,
        "rstrip": false, "single_word": false})
}

fn config() -> Value {
    json!({"bos_token": special("<|startoftext|>"), "eos_token": special("<|endoftext|>"),
        "unk_token": special("<|endoftext|>"), "pad_token": "<|endoftext|>", "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer"})
}

fn write(folder: &Path, name: &str, text: &(impl Display + ?Sized)) {
    fs::write(folder.join(name), text.to_string()).unwrap();
}

/// The folder of older models: `vocab.json` and `merges.txt`.
fn folder_of_parts(config: &Value) -> TempDir {
    let (folder, merges) = (TempDir::new().unwrap(), unpacked(MERGES));
    write(folder.path(), "tokenizer_config.json", config);
    write(folder.path(), "vocab.json", &Value::from(vocabulary(&merges)));
    write(folder.path(), "merges.txt", &format!("#version: 0.2\n{merges}"));
    folder
}

/// The folder of newer models: all in `tokenizer.json`.
fn folder_of_one(edit: impl Fn(&mut Value)) -> TempDir {
    let (folder, merges) = (TempDir::new().unwrap(), unpacked(MERGES));
    let mut whole: Value = serde_json::from_str(TEMPLATE).unwrap();
    whole["model"]["vocab"] = Value::from(vocabulary(&merges));
    whole["model"]["merges"] = merges.lines().map(|line| line.split(' ').collect::<Vec<_>>()).collect();
    edit(&mut whole);
    write(folder.path(), "tokenizer_config.json", &config());
    write(folder.path(), "tokenizer.json", &whole);
    folder
}

fn open(folder: &TempDir) -> Tokenizer {
    Tokenizer::from_folder(folder.path()).unwrap()
}

/// The prompts whose ids differ.
fn differences(tokenizer: &Tokenizer) -> Vec<String> {
    let document: Value = serde_json::from_str(&unpacked(CASES)).unwrap();
    let cases = document["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 3000);
    let differs = |case: &&Value| {
        let mut expected: Vec<i64> = case["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        expected.resize(77, 49407);
        tokenizer.encode(case["text"].as_str().unwrap()).unwrap().ids != expected
    };
    cases.iter().filter(differs).map(|case| case["text"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn refuses(folder: &TempDir, message: &str) {
    let error = Tokenizer::from_folder(folder.path()).err().unwrap().to_string();
    let shown = error.replace(&folder.path().display().to_string(), "FOLDER");
    assert_eq!(shown, message);
}

#[test]
fn one_file_gives_the_ids_of_transformers() {
    assert_eq!(differences(&open(&folder_of_one(|_| {}))), [""; 0]);
}

#[test]
fn vocabulary_and_merges_give_the_ids_of_transformers() {
    assert_eq!(differences(&open(&folder_of_parts(&config()))), [SHOUTED_SPECIAL]);
}

#[test]
fn special_tokens_may_be_plain_strings() {
    let mut strings = config();
    for role in ["bos_token", "eos_token", "unk_token"] {
        strings[role] = strings[role]["content"].clone();
    }
    // A string has no `normalized`: transformers then looks for the token before lower case.
    assert_eq!(differences(&open(&folder_of_parts(&strings))), [""; 0]);
}

#[test]
fn rows_are_cut_and_padded() {
    let mut short = config();
    short["model_max_length"] = json!(6);
    short["pad_token"] = json!("!");
    let tokenizer = open(&folder_of_parts(&short));
    let ids = |prompt| tokenizer.encode(prompt).unwrap();
    let cat = Encoded { ids: vec![49406, 320, 2368, 49407, 0, 0], tokens_used: 4, truncated: false };
    assert_eq!(ids("a cat"), cat);
    let full = Encoded { ids: vec![49406, 320, 1125, 539, 320, 49407], tokens_used: 6, truncated: true };
    assert_eq!(ids("a photo of a cat"), full);
    assert!(!ids("a photo of a").truncated);
}

#[test]
fn the_padding_token_is_special_in_a_prompt_too() {
    let mut marks = config();
    marks["pad_token"] = json!("!");
    let ids = open(&folder_of_parts(&marks)).encode("hello! a!!").unwrap().ids;
    assert_eq!(ids[..8], [49406, 3306, 0, 320, 0, 0, 49407, 0]);
}

#[test]
fn special_tokens_may_stand_in_the_map() {
    let mut bare = config();
    let mut map = Map::new();
    for role in ["bos_token", "eos_token", "unk_token", "pad_token"] {
        map.insert(role.to_owned(), bare.as_object_mut().unwrap().remove(role).unwrap());
    }
    let folder = folder_of_parts(&bare);
    refuses(&folder, "`FOLDER/tokenizer_config.json`: `bos_token`: expected a token, found none");
    write(folder.path(), "special_tokens_map.json", &Value::from(map));
    assert_eq!(open(&folder).encode("a cat").unwrap().ids[..4], [49406, 320, 2368, 49407]);
}

#[test]
fn incomplete_folders_are_refused() {
    let folder = TempDir::new().unwrap();
    refuses(&folder, "cannot read `FOLDER/tokenizer_config.json`");
    write(folder.path(), "tokenizer_config.json", "{");
    refuses(&folder, "cannot parse `FOLDER/tokenizer_config.json`");
    write(folder.path(), "tokenizer_config.json", &config());
    refuses(&folder, "`FOLDER`: expected `tokenizer.json`, or `vocab.json` and `merges.txt`, found neither");
    write(folder.path(), "vocab.json", r#"{"a": 0}"#);
    refuses(&folder, "cannot read `FOLDER/merges.txt`");
    write(folder.path(), "merges.txt", "#version: 0.2\na b c\n");
    refuses(&folder, "`FOLDER/merges.txt`: `line 2`: expected two symbols with a space between, found `a b c`");
    write(folder.path(), "merges.txt", "a b\n");
    refuses(&folder, "cannot build a tokenizer from `FOLDER/merges.txt`");
    write(folder.path(), "vocab.json", r#"{"a": -1}"#);
    refuses(&folder, "`FOLDER/vocab.json`: `a`: expected an id, found -1");
}

#[test]
fn settings_of_other_tokenizers_are_refused() {
    let folder = folder_of_parts(&config());
    let change = |key: &str, value: Value, message: &str| {
        let mut changed = config();
        changed[key] = value;
        write(folder.path(), "tokenizer_config.json", &changed);
        refuses(&folder, message);
    };
    change(
        "tokenizer_class",
        json!("GPT2Tokenizer"),
        "`FOLDER/tokenizer_config.json`: `tokenizer_class`: expected `CLIPTokenizer` or `CLIPTokenizerFast`, \
         found \"GPT2Tokenizer\"",
    );
    change(
        "model_max_length",
        json!(1e30),
        "`FOLDER/tokenizer_config.json`: `model_max_length`: expected an integer from 2 to 65536, found 1e+30",
    );
    change(
        "eos_token",
        json!({"text": "x"}),
        "`FOLDER/tokenizer_config.json`: `eos_token`: expected a string, or an object with a string `content`, \
         found {\"text\":\"x\"}",
    );
}

#[test]
fn another_frame_is_refused() {
    let folder = folder_of_one(|whole| whole["post_processor"] = Value::Null);
    refuses(&folder, "`FOLDER/tokenizer.json`: expected an empty prompt to give [49406, 49407] (begin, end), found []");
    let mut other = config();
    other["pad_token"] = json!("<pad>");
    let folder = folder_of_one(|_| {});
    write(folder.path(), "tokenizer_config.json", &other);
    refuses(&folder, "`FOLDER/tokenizer.json`: expected the `pad_token` `<pad>` in the vocabulary, found none");
}
