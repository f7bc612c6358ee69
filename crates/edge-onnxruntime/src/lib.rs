//! A second opinion: runs ONNX files on ONNX Runtime, from a library that is loaded at run time.
//!
//! Operators run one by one, as they stand in the file and on one thread: nothing is fused or reordered, so that the answer
//! is what the file says, and the same each time.

use std::path::{Path, PathBuf};

use edge_ir::{Checked, DType, Executor, Failure, Graph, Ports, Tensor, TensorType};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session as Inner, SessionInputValue};
use ort::value::{DynValue, Tensor as Value};

/// The oldest ONNX Runtime that is taken: 1.N.
pub const OLDEST: u32 = ort::MINOR_VERSION;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library cannot be loaded.
    #[error("cannot load `{}` as ONNX Runtime: {reason}", path.display())]
    Library {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The library is too old.
    #[error("`{}` is ONNX Runtime {found}, expected 1.{OLDEST} or later", path.display())]
    Old {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// ONNX Runtime does not take a model, or fails on it.
    #[error("ONNX Runtime cannot {action} `{graph}`: {reason}")]
    Runtime {
        /// `load` or `run`.
        action: &'static str,
        /// The graph's name.
        graph: String,
        /// What it says.
        reason: String,
    },
    /// A tensor of a type that is not exchanged.
    #[error("`{graph}` has {name} of {dtype}, which cannot be exchanged with ONNX Runtime")]
    Type {
        /// The graph's name.
        graph: String,
        /// Which tensor.
        name: String,
        /// Its type.
        dtype: DType,
    },
}

/// A library that is loaded, for as long as the program runs.
#[derive(Clone, Debug)]
pub struct Library {
    path: PathBuf,
}

impl Library {
    /// Loads the library of this file; a program loads one.
    ///
    /// # Errors
    /// If the file is no ONNX Runtime, or one that is too old.
    pub fn load(path: &Path) -> Result<Self, Error> {
        // ort looks for a relative path beside the program first.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let failed = |error: ort::LoadDynamicError| match error {
            ort::LoadDynamicError::BadVersion { version_str, path } => Error::Old { path, found: version_str },
            ort::LoadDynamicError::Dlopen { error, path } => Error::Library { path, reason: error.to_string() },
            ort::LoadDynamicError::MissingApi { path } => {
                Error::Library { path, reason: "it has no `OrtGetApiBase`".into() }
            }
        };
        ort::init_from(&path).map_err(failed)?.with_telemetry(false).commit();
        Ok(Self { path })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version as the file's name has it, as `1.32.0`, else what the library says of its build.
    pub fn version(&self) -> String {
        let file = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version = name.split_once(".so.").map(|(_, version)| version.to_owned());
        version.unwrap_or_else(|| ort::info().to_owned())
    }

    /// Makes an ONNX file ready to run. `graph` is what is in it.
    ///
    /// # Errors
    /// If ONNX Runtime does not take the file.
    pub fn session(&self, file: &Path, graph: &Checked<Graph>) -> Result<Session, Error> {
        let failed = |reason: String| Error::Runtime { action: "load", graph: graph.name.clone(), reason };
        let open = || -> Result<Inner, String> {
            let builder = Inner::builder().map_err(|e| e.to_string())?;
            let builder =
                builder.with_optimization_level(GraphOptimizationLevel::Disable).map_err(|e| e.to_string())?;
            let builder = builder.with_intra_threads(1).map_err(|e| e.to_string())?;
            let mut builder = builder.with_inter_threads(1).map_err(|e| e.to_string())?;
            builder.commit_from_file(file).map_err(|e| e.to_string())
        };
        Ok(Session { ports: Ports::of(graph), inner: open().map_err(failed)? })
    }
}

/// A graph that is loaded and can run any number of times.
#[derive(Debug)]
pub struct Session {
    ports: Ports,
    inner: Inner,
}

impl Session {
    fn evaluate(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let Ports { graph, inputs: taken, outputs: given } = &self.ports;
        let failed = |e: ort::Error| Error::Runtime { action: "run", graph: graph.clone(), reason: e.to_string() };
        let mut fed = Vec::new();
        for ((name, _), tensor) in taken.iter().zip(inputs) {
            let value = to_value(tensor).ok_or_else(|| unknown(graph, name, &tensor.ty))?.map_err(failed)?;
            fed.push((name.clone(), SessionInputValue::Owned(value)));
        }
        let results = self.inner.run(fed).map_err(failed)?;
        let mut outputs = Vec::new();
        for (name, ty) in given {
            let missing =
                || Error::Runtime { action: "run", graph: graph.clone(), reason: format!("no output `{name}`") };
            let value = results.get(name).ok_or_else(missing)?;
            outputs.push(from_value(value, ty).ok_or_else(|| unknown(graph, name, ty))?.map_err(failed)?);
        }
        Ok(outputs)
    }
}

impl Executor for Session {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        self.ports.check(inputs)?;
        Ok(self.evaluate(inputs)?)
    }
}

fn unknown(graph: &str, name: &str, ty: &TensorType) -> Error {
    Error::Type { graph: graph.into(), name: format!("`{name}`"), dtype: ty.dtype }
}

/// A type that is exchanged, with the way to and from it.
macro_rules! exchanged {
    ($($dtype:ident: $native:ty),*) => {
        /// A tensor of ONNX Runtime's; `None` if its type is not exchanged.
        fn to_value(tensor: &Tensor) -> Option<ort::Result<DynValue>> {
            let shape = tensor.ty.shape.clone();
            match tensor.ty.dtype {
                $(DType::$dtype => {
                    let numbers: Vec<$native> =
                        tensor.bytes.as_chunks().0.iter().map(|b| <$native>::from_le_bytes(*b)).collect();
                    Some(Value::from_array((shape, numbers)).map(Value::into_dyn))
                })*
                _ => None,
            }
        }

        fn from_value(value: &DynValue, ty: &TensorType) -> Option<ort::Result<Tensor>> {
            match ty.dtype {
                $(DType::$dtype => Some(value.try_extract_tensor::<$native>().map(|(_, numbers)| Tensor {
                    ty: ty.clone(),
                    bytes: numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
                })),)*
                _ => None,
            }
        }
    };
}

exchanged!(Float32: f32, Int64: i64, Int32: i32, Int16: i16, Uint16: u16, Int8: i8, Uint8: u8);
