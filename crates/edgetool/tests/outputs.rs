//! Outputs are there whole or not at all: places that are taken, cannot be written or are full, and Ctrl-C.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{EDGETOOL, PROMPT, Ran, Sandbox, assert_same_trees};
use serde_json::json;

const CHECKPOINT: &str = "tests/fixtures/sd15";
const DRAW: [&str; 8] = ["run", CHECKPOINT, "--prompt", PROMPT, "--steps", "1", "--quiet", "-o"];

/// Longest wait for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn a_folder_that_is_there_is_kept_without_force() {
    let sandbox = Sandbox::new();
    sandbox.convert(CHECKPOINT, "out", &[]);
    let before = sandbox.tree("out");
    fs::write(sandbox.path("file"), "x").unwrap();
    std::os::unix::fs::symlink("nowhere", sandbox.path("link")).unwrap();
    for output in ["out", "file", "link"] {
        let hint = "hint: name another output, or replace it with `--force`";
        let expected = format!("error: `{output}` is already there\n\n{hint}\n");
        sandbox.refuses(&["convert", "tests/fixtures/sd2", "-o", output], &expected);
    }
    assert_same_trees(&before, &sandbox.tree("out"));
}

#[test]
fn force_replaces_the_whole_folder() {
    let sandbox = Sandbox::new();
    sandbox.convert("tests/fixtures/sd2", "expected", &[]);
    sandbox.convert(CHECKPOINT, "out", &[]);
    fs::write(sandbox.path("out/old"), "x").unwrap();
    sandbox.convert("tests/fixtures/sd2", "out", &["--force"]);
    assert_same_trees(&sandbox.tree("expected"), &sandbox.tree("out"));
    assert_eq!(sandbox.made(), ["expected", "out"]);
    // Force does not mean that something must be there.
    sandbox.convert("tests/fixtures/sd2", "new", &["--force"]);
    assert_same_trees(&sandbox.tree("expected"), &sandbox.tree("new"));
}

#[test]
fn force_keeps_the_folder_when_the_conversion_fails() {
    let sandbox = Sandbox::new();
    sandbox.convert(CHECKPOINT, "out", &[]);
    let before = sandbox.tree("out");
    sandbox.refusal(&["convert", "nowhere", "-o", "out", "--force"]);
    sandbox.refusal(&["convert", CHECKPOINT, "-o", "out", "--force", "--height", "63"]);
    let ran = with_small_files(&sandbox, &["convert", CHECKPOINT, "-o", "out", "--force"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert_same_trees(&before, &sandbox.tree("out"));
    assert_eq!(sandbox.made(), ["out"]);
}

#[test]
fn a_picture_that_is_there_is_replaced_only_by_a_whole_one() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("p.png"), "old").unwrap();
    sandbox.refusal(&["run", "nowhere", "--prompt", PROMPT, "-o", "p.png"]);
    assert_eq!(fs::read(sandbox.path("p.png")).unwrap(), b"old");
    sandbox.ok(&[&DRAW[..], &["p.png"]].concat());
    assert!(fs::read(sandbox.path("p.png")).unwrap().starts_with(b"\x89PNG"));
    let expected = "error: `tests` is a folder, expected the name of a file\n";
    sandbox.refuses(&[&DRAW[..], &["tests"]].concat(), expected);
}

#[test]
fn places_that_cannot_be() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("notes.txt"), "x").unwrap();
    for (parent, name) in [("notes.txt", "out"), ("nowhere", "out"), ("nowhere/deep", "out")] {
        let expected =
            format!("error: `{parent}` is not a folder, so `{name}` cannot be made in it\n\nhint: create it first\n");
        let output = format!("{parent}/{name}");
        sandbox.refuses(&["convert", CHECKPOINT, "-o", &output], &expected);
        sandbox.refuses(&[&DRAW[..], &[&output]].concat(), &expected);
    }
    for output in ["/", "..", ""] {
        sandbox.refusal(&["convert", CHECKPOINT, "-o", output, "--force"]);
        sandbox.refusal(&[&DRAW[..], &[output]].concat());
    }
}

#[test]
fn a_folder_that_cannot_be_written() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("closed")).unwrap();
    let mut rights = fs::metadata(sandbox.path("closed")).unwrap().permissions();
    rights.set_readonly(true);
    fs::set_permissions(sandbox.path("closed"), rights).unwrap();
    // Permissions do not bind root, who finds a folder that nobody writes to in Linux's /proc.
    let binds = File::create(sandbox.path("closed/probe")).is_err();
    let folder = if binds { "closed" } else { "/proc/self" };
    if !Path::new(folder).exists() {
        return skipped("permissions do not bind, and there is no /proc");
    }
    let output = format!("{folder}/out");
    let said = sandbox.refusal(&["convert", CHECKPOINT, "-o", &output]);
    assert!(said.starts_with(&format!("error: cannot create a folder beside `{output}`\n  caused by: ")), "{said}");
    let said = sandbox.refusal(&[&DRAW[..], &[&output]].concat());
    assert!(said.starts_with(&format!("error: cannot write `{output}`\n  caused by: ")), "{said}");
}

/// Runs the program where no file can grow beyond some kilobytes: writing fails in the middle, as on a full disk.
fn with_small_files(sandbox: &Sandbox, args: &[&str]) -> Ran {
    let script = "trap '' XFSZ; ulimit -f 40; exec \"$0\" \"$@\"";
    let args = [&["-c", script, EDGETOOL], args].concat();
    Ran::new(sandbox.command("sh", &args).output().unwrap())
}

#[test]
fn files_that_cannot_grow() {
    let sandbox = Sandbox::new();
    sandbox.copy("sd15", "checkpoint");
    let before = sandbox.names();
    for weights in ["copy", "inline"] {
        let ran = with_small_files(&sandbox, &["convert", "checkpoint", "-o", "out", "--weights", weights]);
        assert_eq!(ran.code, Some(2), "{weights}: {}", ran.stderr);
        assert!(
            ran.stderr.starts_with("error: cannot convert `checkpoint`\n  caused by: cannot write `"),
            "{}",
            ran.stderr
        );
    }
    let save = [&DRAW[..], &["p.png", "--save-tensors", "t.safetensors"]].concat();
    let ran = with_small_files(&sandbox, &save);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: cannot write `t.safetensors`\n  caused by: "), "{}", ran.stderr);
    assert_eq!(sandbox.names(), before);
}

#[test]
fn a_disk_that_is_full() {
    let sandbox = Sandbox::new();
    // A disk of its own, in a mount namespace of its own; the program's folder is the disk.
    let script =
        "mount -t tmpfs -o size=300k tmpfs small && touch mounted && \"$0\" \"$@\"; code=$?; ls -A small; exit $code";
    fs::create_dir(sandbox.path("small")).unwrap();
    for options in [["--weights", "copy"], ["--weights", "inline"]] {
        let args = [
            &["--map-root-user", "--mount", "sh", "-c", script, EDGETOOL],
            ["convert", CHECKPOINT, "-o", "small/out"].as_slice(),
            &options,
        ]
        .concat();
        let output = sandbox.command("unshare", &args).output();
        if !sandbox.path("mounted").exists() {
            return skipped("this system does not let a test mount a disk");
        }
        let ran = Ran::new(output.unwrap());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
        assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    }
}

#[test]
fn stdout_that_is_full() {
    let sandbox = Sandbox::new();
    let Ok(full) = File::options().write(true).open("/dev/full") else { return skipped("there is no /dev/full") };
    let output = sandbox.command(EDGETOOL, &["inspect", CHECKPOINT, "--format", "json"]).stdout(full).output().unwrap();
    let ran = Ran::new(output);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: cannot write to the standard output\n  caused by: "), "{}", ran.stderr);
}

/// A checkpoint whose text encoder has a vocabulary of gigabytes, all zero, in a sparse file: a token takes 64 bytes.
fn large_checkpoint(sandbox: &Sandbox, tokens: u64) {
    sandbox.copy("sd15", "large");
    sandbox.edit_json("large/text_encoder/config.json", |fields| fields["vocab_size"] = json!(tokens));
    let file = "large/text_encoder/model.safetensors";
    let path = sandbox.path(file);
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, tensor) in common::tensors::read(&path) {
        let rows = if name.ends_with("token_embedding.weight") { tokens } else { tensor.shape[0] as u64 };
        let row = (tensor.bytes.len() / tensor.shape[0]) as u64;
        let shape: Vec<u64> = std::iter::once(rows).chain(tensor.shape[1..].iter().map(|d| *d as u64)).collect();
        header.insert(name, json!({"dtype": "F16", "shape": shape, "data_offsets": [end, end + rows * row]}));
        end += rows * row;
    }
    let text = serde_json::to_vec(&header).unwrap();
    let start = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
    fs::write(&path, &start).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(start.len() as u64 + end).unwrap();
}

#[test]
fn an_interrupt_leaves_nothing() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("out")).unwrap();
    fs::write(sandbox.path("out/old"), "x").unwrap();
    // Seconds of work each; an inline model has to stay below 2 GiB.
    for (signal, weights, tokens) in [("INT", "copy", 1 << 26), ("TERM", "inline", 31 << 20), ("INT", "link", 1 << 26)]
    {
        large_checkpoint(&sandbox, tokens);
        let before = sandbox.names();
        let args = ["convert", "large", "-o", "out", "--force", "--weights", weights];
        let mut child = sandbox.command(EDGETOOL, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Writing has begun when the first network's folder is there, in the temporary folder beside the target.
        let begun = sandbox.path(format!(".out.edgetool-{}/text_encoder", child.id()));
        let started = Instant::now();
        while !begun.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the conversion ended before it could be interrupted");
            assert!(started.elapsed() < PATIENCE, "no temporary folder appeared");
            std::thread::sleep(Duration::from_millis(1));
        }
        let kill = format!("kill -s {signal} {}", child.id());
        assert!(sandbox.command("sh", &["-c", &kill]).status().unwrap().success());
        let ran = Ran::new(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(130), "interrupted: nothing was written\n"));
        assert_eq!(ran.stdout, "");
        assert_eq!(sandbox.names(), before);
    }
}

#[expect(clippy::print_stderr, reason = "who reads the test's output should know")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
