//! Strict reading of one JSON object.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::Error;
use crate::source::Document;

/// Fields that say where a configuration comes from, in every library.
const ORIGIN: &[&str] = &[
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "architectures",
    "model_type",
    "torch_dtype",
    "dtype",
    "transformers_version",
];

/// A field for which one value (or a few) is implemented, as JSON texts; the first is what the libraries default to.
pub(super) type Fixed = (&'static str, &'static [&'static str]);

/// The fields of a configuration, with a record of which were looked at.
pub(super) struct Fields<'a> {
    document: &'a Document,
    used: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Fields<'a> {
    /// Starts on an object whose class, if it names one, is `class`.
    pub(super) fn new(document: &'a Document, class: &str) -> Result<Self, Error> {
        if let Some(Value::String(found)) = document.fields.get("_class_name")
            && found != class
        {
            return Err(Error::field(&document.path, "_class_name", found, class));
        }
        Ok(Self { document, used: RefCell::default() })
    }

    /// The field's value; absent and null are the same.
    fn get(&self, key: &str) -> Option<&'a Value> {
        let (key, value) = self.document.fields.get_key_value(key)?;
        self.used.borrow_mut().insert(key);
        (!value.is_null()).then_some(value)
    }

    /// An error that names file and field.
    pub(super) fn refuse(&self, key: &str, found: impl std::fmt::Display, supported: impl Into<String>) -> Error {
        Error::field(&self.document.path, key, found, supported)
    }

    /// A positive whole number.
    pub(super) fn size(&self, key: &str, default: Option<usize>) -> Result<usize, Error> {
        match self.optional_size(key)?.or(default) {
            Some(size) => Ok(size),
            None => Err(self.refuse(key, "absent", "a positive whole number")),
        }
    }

    /// A positive whole number, or nothing.
    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, Error> {
        self.get(key).map(|v| whole(v).ok_or_else(|| self.refuse(key, v, "a positive whole number"))).transpose()
    }

    /// A whole number from 0 on.
    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| self.refuse(key, value, "a whole number"))
    }

    /// A list of positive whole numbers.
    pub(super) fn sizes(&self, key: &str) -> Result<Option<Vec<usize>>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().filter(|l| !l.is_empty()).and_then(|l| l.iter().map(whole).collect());
        list.map(Some).ok_or_else(|| self.refuse(key, value, "a list of positive whole numbers"))
    }

    /// One positive whole number for all of `n` places, or a list of `n` of them.
    pub(super) fn per_place(&self, key: &str, n: usize, default: Option<usize>) -> Result<Vec<usize>, Error> {
        if !self.document.fields.get(key).is_some_and(Value::is_array) {
            return Ok(vec![self.size(key, default)?; n]);
        }
        let list = self.sizes(key)?.unwrap_or_default();
        if list.len() == n {
            Ok(list)
        } else {
            Err(self.refuse(key, format!("{list:?}"), format!("one number, or a list of {n}")))
        }
    }

    /// A finite number.
    pub(super) fn number(&self, key: &str, default: f32) -> Result<f32, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        #[expect(clippy::cast_possible_truncation, reason = "torch holds these as f32 as well")]
        let number = value.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
        number.ok_or_else(|| self.refuse(key, value, "a number"))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.refuse(key, value, "true or false"))
    }

    /// A word of a table, with what it stands for.
    pub(super) fn word<T: Copy>(&self, key: &str, default: Option<&str>, table: &[(&str, T)]) -> Result<T, Error> {
        let supported = || table.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let found = self.get(key).map_or_else(
            || default.map(str::to_owned),
            |v| Some(v.as_str().map_or_else(|| v.to_string(), str::to_owned)),
        );
        let Some(found) = found else { return Err(self.refuse(key, "absent", supported())) };
        let row = table.iter().find(|(word, _)| *word == found);
        row.map(|(_, meaning)| *meaning).ok_or_else(|| self.refuse(key, found, supported()))
    }

    /// A list of words of a table.
    pub(super) fn words<T: Copy>(&self, key: &str, table: &[(&str, T)]) -> Result<Vec<T>, Error> {
        let supported = || format!("a list of {}", table.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "));
        let value = self.get(key).ok_or_else(|| self.refuse(key, "absent", supported()))?;
        let meaning = |v: &Value| table.iter().find(|(word, _)| v.as_str() == Some(word)).map(|(_, meaning)| *meaning);
        let list = value.as_array().and_then(|l| l.iter().map(meaning).collect());
        list.ok_or_else(|| self.refuse(key, value, supported()))
    }

    /// Whether a field is there and not null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Two numbers for a field that is one or a pair.
    pub(super) fn pair(&self, key: &str) -> Result<Option<[usize; 2]>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        if let Some(one) = whole(value) {
            return Ok(Some([one, one]));
        }
        let list: Option<Vec<usize>> = value.as_array().and_then(|l| l.iter().map(whole).collect());
        match list.as_deref() {
            Some([a, b]) => Ok(Some([*a, *b])),
            _ => Err(self.refuse(key, value, "a positive whole number or two")),
        }
    }

    /// Ends the reading: fields of `fixed` must have one of the values given there, those of `harmless` and of
    /// the configuration's origin may have any, and there may be no others.
    pub(super) fn finish(self, fixed: &[Fixed], harmless: &[&str]) -> Result<(), Error> {
        for (key, allowed) in fixed {
            let Some(value) = self.document.fields.get(*key) else { continue };
            self.get(key);
            if !allowed.contains(&value.to_string().as_str()) {
                return Err(self.refuse(key, value, allowed.join(" or ")));
            }
        }
        for (key, value) in &self.document.fields {
            let known = self.used.borrow().contains(key.as_str())
                || harmless.contains(&key.as_str())
                || ORIGIN.contains(&key.as_str());
            if !known {
                return Err(self.refuse(
                    key,
                    value,
                    "only configurations without this field, which is not implemented",
                ));
            }
        }
        Ok(())
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok())
}
