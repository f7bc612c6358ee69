//! Rust types of the ONNX protobuf messages, from `crates/edge-ir/proto/onnx.proto`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// Writes the generated file, or with `check` says whether the committed one is what would be written.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = workspace_root();
    let target = root.join("crates/edge-ir/src/onnx/proto.rs");
    let fresh = generate(&root)?;
    if !check {
        return fs::write(&target, fresh).with_context(|| format!("cannot write {}", target.display()));
    }
    if fs::read_to_string(&target).unwrap_or_default() == fresh {
        return Ok(());
    }
    bail!("{} is stale: run `cargo xtask codegen`", target.display())
}

fn generate(root: &Path) -> Result<String> {
    let proto_dir = root.join("crates/edge-ir/proto");
    let descriptors = protox::compile([proto_dir.join("onnx.proto")], [&proto_dir])?;
    let out = env::temp_dir().join(format!("edgetool-codegen-{}", std::process::id()));
    fs::create_dir_all(&out)?;
    prost_build::Config::new()
        .out_dir(&out)
        .disable_comments(["."])
        .bytes([".onnx.TensorProto.raw_data"])
        .compile_fds(descriptors)?;
    let code = fs::read_to_string(out.join("onnx.rs"))?;
    fs::remove_dir_all(&out)?;
    Ok(format!(
        "//! The protobuf messages of ONNX, generated from `proto/onnx.proto` by `cargo xtask codegen`.\n\n{code}"
    ))
}

fn workspace_root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}
