//! Where the weights of a written model lie, and their streaming there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use half::{bf16, f16};
use rayon::prelude::*;

use super::encode::Place;
use super::write::NonFinite;
use crate::{DType, Data, Error, Graph, Value};

/// Tensors start at a multiple of this in `model.onnx_data`, so that any runtime can map them.
const ALIGN: u64 = 64;

/// Bytes that go to the disk together.
const TOGETHER: u64 = 16 << 20;

/// Whether a constant is a weight that has a place outside of the model file.
pub(super) fn is_outside(data: &Data) -> bool {
    data.is_streamed()
}

/// A weight of one or more graphs.
pub(super) type Weight<'a> = (&'a Value, &'a Data);

/// The weights of graphs that share a folder, each once; the error is the name of one that is not the same in all.
pub(super) fn of<'a>(graphs: impl Iterator<Item = &'a Graph>) -> Result<Vec<Weight<'a>>, &'a str> {
    let mut seen: BTreeMap<&str, &Data> = BTreeMap::new();
    let mut weights = Vec::new();
    for (_, value, data) in graphs.flat_map(Graph::initializers).filter(|(_, _, d)| is_outside(d)) {
        match seen.get(value.name.as_str()) {
            None => weights.push((value, data)),
            Some(there) if there.is_same(data) => continue,
            Some(_) => return Err(&value.name),
        }
        seen.insert(&value.name, data);
    }
    Ok(weights)
}

/// Places all weights one after the other in one file; returns the places by tensor name and the file's size. Weights
/// that are the same bytes have one place, whatever their names.
pub(super) fn lay_out(weights: &[Weight<'_>], file_name: &str) -> (BTreeMap<String, Place>, u64) {
    let mut end = 0_u64;
    let mut offsets: Vec<(&Data, u64)> = Vec::new();
    let mut places = BTreeMap::new();
    for (value, data) in weights {
        let there = offsets.iter().find(|(other, _)| other.is_same(data)).map(|(_, offset)| *offset);
        let offset = there.unwrap_or_else(|| {
            let offset = end.next_multiple_of(ALIGN);
            offsets.push((data, offset));
            end = offset + data.len();
            offset
        });
        places.insert(value.name.clone(), Place::File { location: file_name.to_owned(), offset, len: data.len() });
    }
    (places, end)
}

/// Streams all weights to their places, in parallel. Integers that are computed go on to the disk meanwhile: the
/// processor is busy with them, and the disk is not.
pub(super) fn copy(
    weights: &[Weight<'_>],
    path: &Path,
    places: &BTreeMap<String, Place>,
    size: u64,
) -> Result<Vec<NonFinite>, Error> {
    let file = File::create(path).map_err(Error::io("write", path))?;
    file.set_len(size).map_err(Error::io("write", path))?;
    let offset = |value: &Value| match places.get(&value.name) {
        Some(Place::File { offset, .. }) => Some(*offset),
        _ => None,
    };
    let mut taken = BTreeSet::new();
    let first: Vec<Weight<'_>> = weights.iter().copied().filter(|(v, _)| taken.insert(offset(v))).collect();
    let (done, written) = mpsc::channel();
    let on_disk = &file;
    thread::scope(|scope| {
        let to_disk = thread::Builder::new()
            .spawn_scoped(scope, move || send_to_disk(on_disk, &written))
            .map_err(Error::io("write", path))?;
        let found = each_weight(&first, |value, data, scan| {
            let Some(mut at) = offset(value) else { return Ok(()) };
            data.stream(&mut |chunk| {
                scan.look(chunk);
                file.write_all_at(chunk, at).map_err(Error::io("write", path))?;
                at += chunk.len() as u64;
                Ok(())
            })?;
            if !value.ty.dtype.is_float() && data.location().is_none() {
                // Nobody listens where the disk has refused, which is what is told then.
                let _ = done.send(data.len());
            }
            Ok(())
        });
        drop(done);
        let found = found?;
        to_disk.join().unwrap_or(Ok(())).map_err(Error::io("write", path))?;
        Ok(found)
    })
}

/// Has the system write to the disk what is in the file, again and again after so many more bytes were `written`.
fn send_to_disk(file: &File, written: &Receiver<u64>) -> io::Result<()> {
    let mut waiting = 0;
    for bytes in written {
        waiting += bytes;
        if waiting >= TOGETHER {
            file.sync_data()?;
            waiting = 0;
        }
    }
    Ok(())
}

/// Links every file that holds weights into `dir` under its own name and returns the weights' places in them; `None`
/// where a weight is in no file, or the file system cannot link.
pub(super) fn link(weights: &[Weight<'_>], dir: &Path) -> Result<Option<BTreeMap<String, Place>>, Error> {
    let mut linked: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (value, data) in weights {
        let Some((file, offset)) = data.location() else { return Ok(None) };
        if !linked.contains_key(file.path()) {
            let name = format!("weights_{}.safetensors", linked.len());
            if fs::hard_link(file.path(), dir.join(&name)).is_err() {
                return unlink(dir, linked.values()).map(|()| None);
            }
            linked.insert(file.path().to_owned(), name);
        }
        let location = linked.get(file.path()).cloned().unwrap_or_default();
        places.insert(value.name.clone(), Place::File { location, offset, len: data.len() });
    }
    Ok(Some(places))
}

fn unlink<'a>(dir: &Path, names: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    for name in names {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

/// Reads all weights, in parallel, only to look for numbers that are not finite.
pub(super) fn scan(weights: &[Weight<'_>]) -> Result<Vec<NonFinite>, Error> {
    each_weight(weights, |_, data, scan| {
        data.stream(&mut |chunk| {
            scan.look(chunk);
            Ok(())
        })
    })
}

fn each_weight(
    weights: &[Weight<'_>],
    work: impl Fn(&Value, &Data, &mut Scan) -> Result<(), Error> + Sync,
) -> Result<Vec<NonFinite>, Error> {
    let found: Vec<Option<NonFinite>> = weights
        .par_iter()
        .map(|(value, data)| {
            let mut scan = Scan { dtype: value.ty.dtype, count: 0 };
            work(value, data, &mut scan)?;
            Ok((scan.count > 0).then(|| NonFinite { tensor: value.name.clone(), count: scan.count }))
        })
        .collect::<Result<_, Error>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// Counts NaN and infinities in chunks of a tensor.
pub(super) struct Scan {
    pub(super) dtype: DType,
    pub(super) count: u64,
}

impl Scan {
    /// Counts those of one chunk.
    pub(super) fn look(&mut self, chunk: &[u8]) {
        let wrong: usize = match self.dtype {
            DType::Float32 => {
                chunk.as_chunks::<4>().0.iter().map(|b| usize::from(!f32::from_le_bytes(*b).is_finite())).sum()
            }
            DType::Float16 => {
                chunk.as_chunks::<2>().0.iter().map(|b| usize::from(!f16::from_le_bytes(*b).is_finite())).sum()
            }
            DType::BFloat16 => {
                chunk.as_chunks::<2>().0.iter().map(|b| usize::from(!bf16::from_le_bytes(*b).is_finite())).sum()
            }
            _ => 0,
        };
        self.count += wrong as u64;
    }
}
