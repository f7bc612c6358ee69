//! `cargo xtask codegen`: Rust types of the ONNX protobuf messages, from `crates/edge-ir/proto/onnx.proto`.

use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::steps;

/// The generated file.
pub(crate) const PROTO_RS: &str = "crates/edge-ir/src/onnx/proto.rs";

/// Writes the generated file, or with `check` says whether the committed one is what would be written.
pub(crate) fn run(check: bool) -> Result<()> {
    if !check {
        let path = steps::root().join(PROTO_RS);
        return fs::write(&path, generate()?).with_context(|| format!("cannot write {}", path.display()));
    }
    match stale()? {
        Some(problem) => bail!("{problem}"),
        None => Ok(()),
    }
}

/// What is wrong with the committed file, if something is.
pub(crate) fn stale() -> Result<Option<String>> {
    let committed = fs::read_to_string(steps::root().join(PROTO_RS)).unwrap_or_default();
    let problem = || format!("{PROTO_RS}: is not what onnx.proto gives: run `cargo xtask codegen`");
    Ok((committed != generate()?).then(problem))
}

fn generate() -> Result<String> {
    let proto_dir = steps::root().join("crates/edge-ir/proto");
    let descriptors = protox::compile([proto_dir.join("onnx.proto")], [&proto_dir])?;
    let out = env::temp_dir().join(format!("edgetool-codegen-{}", std::process::id()));
    fs::create_dir_all(&out)?;
    let written = prost_build::Config::new()
        .out_dir(&out)
        .disable_comments(["."])
        .bytes([".onnx.TensorProto.raw_data"])
        .compile_fds(descriptors)
        .and_then(|()| fs::read_to_string(out.join("onnx.rs")));
    fs::remove_dir_all(&out)?;
    let code = written?;
    Ok(format!(
        "//! The protobuf messages of ONNX, generated from `proto/onnx.proto` by `cargo xtask codegen`.\n\n{code}"
    ))
}
