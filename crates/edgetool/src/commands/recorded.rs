//! Inputs of networks that were recorded elsewhere: on a device, or by training code.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use edge_ir::{Executor, Tensor, TensorType};
use edge_quant::calibration::{PromptSet, Shard};
use edge_run::{Session, tensors};
use edge_spec::sha256;

use super::model::Model;
use crate::report;

/// What each component was fed, by input; samples lie one after the other along the first axis.
pub(super) struct Recorded {
    path: PathBuf,
    sha256: String,
    number: Option<NonZero<usize>>,
    components: BTreeMap<String, BTreeMap<String, Tensor>>,
}

/// Whether a file has recorded inputs, and no prompts.
pub(super) fn is_recorded(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors")
}

impl Recorded {
    /// Reads tensors that are named `COMPONENT/INPUT`, of which each component that is `asked` for has some. At most
    /// `number` samples are used.
    pub(super) fn read(path: &Path, number: Option<NonZero<usize>>, model: &Model, asked: &[String]) -> Result<Self> {
        let known = model.components();
        let mut components: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for (name, tensor) in tensors::read(path)? {
            let place = name.split_once('/').filter(|(component, _)| known.iter().any(|k| k == component));
            let Some((component, input)) = place else {
                let text =
                    format!("`{}` has the tensor `{name}`, expected names like `COMPONENT/INPUT`", path.display());
                return Err(report::with_hint(text, format!("the components are {}", known.join(", "))));
            };
            components.entry(component.to_owned()).or_default().insert(input.to_owned(), tensor);
        }
        if let Some(missing) = asked.iter().find(|name| !components.contains_key(*name)) {
            let text = format!("`{}` has no inputs of `{missing}`", path.display());
            let there = components.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(report::with_hint(
                text,
                format!("it has some of {there}; `--component` names what to look at"),
            ));
        }
        let hash = sha256(File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?)?;
        Ok(Self { path: path.to_owned(), sha256: hash, number, components })
    }

    /// The components that it has inputs of.
    pub(super) fn components(&self) -> impl Iterator<Item = &str> {
        self.components.keys().map(String::as_str)
    }

    /// What statistics say of where they are from.
    pub(super) fn set(&self) -> PromptSet {
        let rows = self.components.values().flat_map(BTreeMap::values).filter_map(|t| t.ty.shape.first());
        let count = rows.copied().max().unwrap_or(0).min(self.number.map_or(usize::MAX, NonZero::get));
        PromptSet { sha256: self.sha256.clone(), count }
    }

    /// Runs a component on the samples of a part.
    pub(super) fn run(&self, component: &str, session: &mut Session, part: Shard) -> Result<()> {
        let samples = self.samples(component, session.inputs())?;
        for (_, sample) in samples.iter().enumerate().filter(|(index, _)| part.has(*index)) {
            session.run(sample).map_err(|error| anyhow::anyhow!(error))?;
        }
        Ok(())
    }

    /// The samples of a component, each with its inputs in order.
    fn samples(&self, component: &str, wanted: &[(String, TensorType)]) -> Result<Vec<Vec<Tensor>>> {
        let none = BTreeMap::new();
        let given = self.components.get(component).unwrap_or(&none);
        if let Some(other) = given.keys().find(|name| !wanted.iter().any(|(input, _)| input == *name)) {
            let text = format!("`{}` has `{component}/{other}`, which is no input", self.path.display());
            let names = wanted.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(report::with_hint(text, format!("the inputs of {component} are {names}")));
        }
        let parts = wanted.iter().map(|(input, ty)| self.cut(component, input, ty, given.get(input)));
        let parts = parts.collect::<Result<Vec<Vec<Tensor>>>>()?;
        let counts: Vec<usize> = parts.iter().map(Vec::len).collect();
        let count = counts.iter().copied().min().unwrap_or(0);
        if let Some(index) = counts.iter().position(|c| *c != count) {
            let (path, input) = (self.path.display(), &wanted[index].0);
            let text = format!(
                "`{path}` has {} samples of `{component}/{input}`, and {count} of another input",
                counts[index]
            );
            return Err(report::with_hint(text, "each input has as many samples as the others"));
        }
        let count = count.min(self.number.map_or(usize::MAX, NonZero::get));
        Ok((0..count).map(|sample| parts.iter().map(|part| part[sample].clone()).collect()).collect())
    }

    /// An input's samples.
    fn cut(&self, component: &str, input: &str, ty: &TensorType, given: Option<&Tensor>) -> Result<Vec<Tensor>> {
        let path = self.path.display();
        let Some(given) = given else {
            let text = format!("`{path}` has no tensor `{component}/{input}`, expected samples of {ty}");
            return Err(report::with_hint(text, "record all inputs of a network together"));
        };
        let (rows, rest) = ty.shape.split_first().map_or((1, &[][..]), |(rows, rest)| (*rows, rest));
        let there = given.ty.shape.split_first();
        let fits = given.ty.dtype == ty.dtype
            && there.is_some_and(|(all, others)| *all > 0 && all.is_multiple_of(rows.max(1)) && others == rest);
        if !fits {
            let text = format!("`{component}/{input}` of `{path}` is {}, expected samples of {ty}", given.ty);
            return Err(report::with_hint(text, "samples lie one after the other along the first axis"));
        }
        let size = usize::try_from(ty.bytes()).unwrap_or(usize::MAX).max(1);
        Ok(given.bytes.chunks_exact(size).map(|bytes| Tensor { ty: ty.clone(), bytes: bytes.to_vec() }).collect())
    }
}
