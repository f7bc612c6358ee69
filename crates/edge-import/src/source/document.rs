//! A JSON file that holds an object.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::Error;

/// A parsed JSON object and the file it is from.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file.
    pub path: PathBuf,
    /// The object, in the file's order.
    pub fields: Map<String, Value>,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is not JSON, or is not an object.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let json = |reason| Error::Json { path: path.to_owned(), reason };
        match serde_json::from_str(&text).map_err(|e| json(e.to_string()))? {
            Value::Object(fields) => Ok(Self { path: path.to_owned(), fields }),
            _ => Err(json("expected an object".to_owned())),
        }
    }

    /// diffusers' class name.
    pub fn class(&self) -> Option<&str> {
        self.fields.get("_class_name").and_then(Value::as_str)
    }

    /// The object as text, as diffusers writes it.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(&self.fields).unwrap_or_default() + "\n"
    }
}
