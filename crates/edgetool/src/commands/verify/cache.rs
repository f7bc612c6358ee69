//! What the reference made, kept for the next time: an entry for each set of its files, prompts and settings, and for this
//! very program.
//!
//! An entry is a safetensors file whose name holds the SHA-256 of its content. It appears whole, by a rename; one that was
//! damaged is none. Nothing here is needed: what cannot be read or kept is computed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use edge_ir::{DType, Tensor, TensorType};
use edge_run::picture::Picture;
use edge_run::tensors;
use edge_spec::Measured;
use edge_verify::{Drawing, Place, Sample};

use super::drawn::{Drawn, indices, pixels};
use super::layers::Samples;
use crate::report;

/// The version of entries.
const VERSION: &str = "edgetool-reference/1";
/// Bytes of all entries; the oldest go when there are more.
const MOST: u64 = 2 << 30;
/// Between the parts of a layer's name.
const BAR: char = '|';

/// Tensors by name, as they stand in an entry.
type Entry = BTreeMap<String, Tensor>;

/// The entries of one reference with its settings; none where nothing is kept.
pub(super) struct Cache {
    place: Option<(PathBuf, String)>,
}

impl Cache {
    /// Keeps nothing.
    pub(super) fn none() -> Self {
        Self { place: None }
    }

    /// The entries of a reference of these files, in the user's folder for such. `settings` has all else on which the
    /// results depend.
    pub(super) fn open(files: &[Measured], settings: &[String]) -> Self {
        let program = std::env::current_exe().and_then(fs::File::open).and_then(edge_spec::sha256);
        let (Some(folder), Ok(program)) = (folder(), program) else { return Self::none() };
        let files = files.iter().map(|file| format!("{} {} {}", file.sha256, file.size, file.path));
        let lines: Vec<String> =
            [VERSION.to_owned(), program].into_iter().chain(files).chain(settings.iter().cloned()).collect();
        Self { place: Some((folder, lines.join("\n"))) }
    }

    /// The drawings, kept or computed.
    pub(super) fn drawn(&self, compute: impl FnOnce() -> Result<Vec<Drawn>>) -> Result<Vec<Drawn>> {
        self.kept("drawings", |entry| from_drawings(&entry), |drawn: &Vec<Drawn>| drawings(drawn), compute)
    }

    /// The layers, kept or computed.
    pub(super) fn samples(&self, compute: impl FnOnce() -> Result<Samples>) -> Result<Samples> {
        self.kept("layers", from_layers, |samples: &Samples| layers(samples), compute)
    }

    fn kept<T>(
        &self,
        kind: &str,
        read: impl FnOnce(Entry) -> Option<T>,
        write: impl FnOnce(&T) -> Entry,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some((folder, text)) = &self.place else { return compute() };
        let key = edge_spec::sha256(format!("{kind}\n{text}").as_bytes()).context("cannot name an entry")?;
        if let Some(found) = find(folder, &key).and_then(read) {
            return Ok(found);
        }
        let computed = compute()?;
        if let Err(error) = keep(folder, &key, &write(&computed)) {
            report::warn(format!("what the reference made is not kept in `{}`: {error:#}", folder.display()));
        }
        Ok(computed)
    }
}

/// The user's folder for what can be computed again.
fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("edgetool/verify"))
}

/// The entry, if it is there and whole; a damaged one is removed.
fn find(folder: &Path, key: &str) -> Option<Entry> {
    for file in fs::read_dir(folder).ok()?.filter_map(Result::ok) {
        let name = file.file_name().into_string().ok()?;
        let Some(sum) = name.strip_suffix(".safetensors").and_then(|stem| stem.strip_prefix(key)?.strip_prefix('-'))
        else {
            continue;
        };
        let found = fs::File::open(file.path()).and_then(edge_spec::sha256);
        if found.is_ok_and(|found| found == sum) {
            return tensors::read(&file.path()).ok();
        }
        // If it cannot be removed, it is found damaged again.
        let _ = fs::remove_file(file.path());
    }
    None
}

fn keep(folder: &Path, key: &str, entry: &Entry) -> Result<()> {
    fs::create_dir_all(folder).context("cannot make the folder")?;
    let bytes = tensors::encode(entry, folder)?;
    let sum = edge_spec::sha256(bytes.as_slice())?;
    let temporary = folder.join(format!(".{key}-{}", std::process::id()));
    let written = fs::write(&temporary, &bytes)
        .and_then(|()| fs::rename(&temporary, folder.join(format!("{key}-{sum}.safetensors"))));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.context("cannot write")?;
    trim(folder)
}

/// Removes the oldest entries while there are too many bytes; others may do the same at the same time.
fn trim(folder: &Path) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(folder)?
        .filter_map(|file| {
            let file = file.ok()?;
            let meta = file.metadata().ok()?;
            Some((meta.modified().ok()?, file.path(), meta.len()))
        })
        .collect();
    files.sort();
    let mut bytes: u64 = files.iter().map(|file| file.2).sum();
    for (_, path, size) in files {
        if bytes <= MOST {
            break;
        }
        bytes -= size;
        let _ = fs::remove_file(path);
    }
    Ok(())
}

fn drawings(drawn: &[Drawn]) -> Entry {
    let bytes =
        |shape: &[usize], bytes: &[u8]| Tensor { ty: TensorType::new(DType::Uint8, shape), bytes: bytes.to_vec() };
    let mut entry = Entry::new();
    for (index, Drawn { drawing, picture, truncated, .. }) in drawn.iter().enumerate() {
        let mut put = |name: String, tensor| entry.insert(format!("{index}.{name}"), tensor);
        put("truncated".into(), bytes(&[1], &[u8::from(*truncated)]));
        if let Some(tokens) = &drawing.tokens {
            put("tokens".into(), Tensor::i64s([tokens.len()], tokens));
        }
        if let Some(context) = &drawing.context {
            put("context".into(), context.clone());
        }
        for (step, output) in &drawing.outputs {
            put(format!("output.{step}"), output.clone());
        }
        for (step, latent) in &drawing.latents {
            put(format!("latent.{step}"), latent.clone());
        }
        if let Some(Picture { width, height, rgb, .. }) = picture {
            put("picture".into(), bytes(&[*height as usize, *width as usize, 3], rgb));
        }
    }
    entry
}

/// `None` if there are none.
fn from_drawings(entry: &Entry) -> Option<Vec<Drawn>> {
    let mut drawn = Vec::new();
    for index in 0.. {
        let get = |name: &str| entry.get(&format!("{index}.{name}"));
        let Some(truncated) = get("truncated") else { break };
        let steps = |name: &str| -> BTreeMap<usize, Tensor> {
            let prefix = format!("{index}.{name}.");
            let of =
                |(key, tensor): (&String, &Tensor)| Some((key.strip_prefix(&prefix)?.parse().ok()?, tensor.clone()));
            entry.iter().filter_map(of).collect()
        };
        let picture = get("picture").and_then(|tensor| {
            let [height, width] = [0, 1].map(|axis| u32::try_from(tensor.ty.shape[axis]).ok());
            Some(Picture { width: width?, height: height?, values: Vec::new(), rgb: tensor.bytes.clone() })
        });
        let drawing = Drawing {
            tokens: get("tokens").map(indices),
            context: get("context").cloned(),
            outputs: steps("output"),
            latents: steps("latent"),
            picture: picture.as_ref().map(pixels),
        };
        drawn.push(Drawn::given(drawing, picture, truncated.bytes == [1]));
    }
    (!drawn.is_empty()).then_some(drawn)
}

fn layers(samples: &Samples) -> Entry {
    let named = |(place, sample): (&Place, &Sample)| {
        let Place { component, step, negative, node } = place;
        let step = step.map_or_else(String::new, |step| step.to_string());
        let shape = sample.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let name = [component.as_str(), &step, if *negative { "1" } else { "0" }, node, &shape].join(&BAR.to_string());
        (name, Tensor::f32s([sample.numbers.len()], &sample.numbers))
    };
    samples.iter().map(named).collect()
}

fn from_layers(entry: Entry) -> Option<Samples> {
    let named = |(name, tensor): (String, Tensor)| {
        let parts: Vec<&str> = name.split(BAR).collect();
        let [component, step, negative, node, shape] = parts[..] else { return None };
        let step = if step.is_empty() { None } else { Some(step.parse().ok()?) };
        let place = Place { component: component.into(), step, negative: negative == "1", node: node.into() };
        let sizes = shape.split('x').filter(|size| !size.is_empty()).map(str::parse);
        let shape = sizes.collect::<Result<_, _>>().ok()?;
        Some((place, Sample { shape, numbers: tensor.to_f32s() }))
    };
    entry.into_iter().map(named).collect()
}
