//! What the inputs of layers are like while a model draws: sums, greatest magnitudes, and products of one with another.
//!
//! Nothing is kept of the inputs themselves. Layers that read one tensor in the same way share what is known of it, and
//! a weight that several graphs have has the products of all its inputs.

use std::collections::BTreeMap;
use std::ops::Range;

use edge_ir::{Checked, Graph, ValueId};
use rayon::prelude::*;

use crate::calibration::CalibrationError;
use crate::insert::fold_casts;
use crate::layers::{Patches, layers};
use crate::rounding::{Gram, Part};

/// Rows of a tensor that are looked at in one run, spread evenly: neighbouring pixels tell little that is new. A prime,
/// so that the rows do not all lie in the same columns of a picture.
const ROWS: usize = 997;
/// Numbers of a row whose products with one another are summed, at most: memory and time grow with it.
const COLUMNS: usize = 1152;
/// Columns whose sums one thread adds up.
const TOGETHER: usize = 256;
/// Where a matrix is cut, to a multiple of this, so that scales of blocks are not.
const CUT: usize = 128;

/// What is known of the inputs of some networks' layers.
#[derive(Clone, Debug)]
pub struct Inputs {
    products: bool,
    /// The folder of each component: in one folder, a weight's name means the same weight.
    folders: BTreeMap<String, String>,
    components: BTreeMap<String, Component>,
    blocks: BTreeMap<(String, String), Vec<Block>>,
}

#[derive(Clone, Debug, Default)]
struct Component {
    taps: Vec<Tap>,
    /// The tap whose products a weight has.
    of_weight: BTreeMap<String, usize>,
}

/// What layers read in one way.
#[derive(Clone, Debug)]
struct Tap {
    tensor: String,
    patches: Patches,
    /// The first of the weights that meet it.
    weight: String,
    moments: Moments,
}

/// Sums of a layer's inputs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moments {
    rows: u64,
    sums: Vec<f64>,
    squares: Vec<f64>,
    /// The greatest magnitude of each channel.
    pub(crate) greatest: Vec<f32>,
}

/// Products of some numbers of a row.
#[derive(Clone, Debug)]
struct Block {
    group: usize,
    channels: Range<usize>,
    columns: Range<usize>,
    gram: Gram,
}

impl Inputs {
    /// Nothing is known yet. `folders` has the components to look at, and the folder of each. Products, which take
    /// memory and time, are summed if `products` says so.
    pub fn new(products: bool, folders: BTreeMap<String, String>) -> Self {
        Self { products, folders, components: BTreeMap::new(), blocks: BTreeMap::new() }
    }

    /// The tensors of a component that are to be seen, which is then known; none if nobody asked for it.
    pub fn wanted(&mut self, component: &str, graph: &Checked<Graph>) -> Vec<ValueId> {
        let Some(folder) = self.folders.get(component).cloned() else { return Vec::new() };
        if !self.components.contains_key(component) {
            let known = self.component(&folder, &fold_casts(graph));
            self.components.insert(component.to_owned(), known);
        }
        let taps = self.components.get(component).map_or(&[][..], |known| &known.taps);
        let is_read = |name: &str| taps.iter().any(|tap| tap.tensor == name);
        graph.values().filter(|(_, value)| is_read(&value.name)).map(|(id, _)| id).collect()
    }

    fn component(&mut self, folder: &str, graph: &Graph) -> Component {
        let mut known = Component::default();
        for layer in layers(graph) {
            let (tensor, weight) = (&graph.value(layer.input).name, &graph.value(layer.weight).name);
            let there = known.taps.iter().position(|tap| tap.tensor == *tensor && tap.patches == layer.patches);
            let at = there.unwrap_or(known.taps.len());
            if there.is_none() {
                let channels = layer.patches.channels();
                let moments = Moments {
                    rows: 0,
                    sums: vec![0.0; channels * layer.patches.each()],
                    squares: vec![0.0; channels * layer.patches.each()],
                    greatest: vec![0.0; channels],
                };
                let patches = layer.patches.clone();
                known.taps.push(Tap { tensor: tensor.clone(), patches, weight: weight.clone(), moments });
            }
            known.of_weight.entry(weight.clone()).or_insert(at);
        }
        for tap in known.taps.iter().filter(|_| self.products) {
            self.blocks.entry((folder.to_owned(), tap.weight.clone())).or_insert_with(|| blocks(&tap.patches));
        }
        known
    }

    /// Looks at the values of a tensor in one run. Memory use does not grow with their number.
    ///
    /// # Errors
    /// If some are not finite.
    pub fn observe(&mut self, component: &str, tensor: &str, values: &[f32]) -> Result<(), CalibrationError> {
        let (Some(known), Some(folder)) = (self.components.get_mut(component), self.folders.get(component)) else {
            return Ok(());
        };
        let not_finite = values.par_iter().with_min_len(1 << 16).filter(|v| !v.is_finite()).count() as u64;
        for tap in known.taps.iter_mut().filter(|tap| tap.tensor == tensor) {
            if not_finite > 0 {
                let (component, tensor) = (component.to_owned(), tensor.to_owned());
                return Err(CalibrationError::NotFinite { component, tensor, count: not_finite });
            }
            let all = tap.patches.rows(values.len());
            let rows: Vec<usize> =
                if all <= ROWS { (0..all).collect() } else { (0..ROWS).map(|k| k * all / ROWS).collect() };
            let seen = tap.patches.take(values, &rows, 0..tap.patches.channels());
            tap.moments.add(&seen, rows.len());
            tap.patches.greatest(values, &mut tap.moments.greatest);
            for block in self.blocks.get_mut(&(folder.clone(), tap.weight.clone())).into_iter().flatten() {
                let whole = block.channels == (0..tap.patches.channels());
                let own = (!whole).then(|| tap.patches.take(values, &rows, block.channels.clone()));
                block.gram.add(own.as_deref().unwrap_or(&seen));
            }
        }
        Ok(())
    }

    /// The products of the inputs of a weight with so many outputs; none if they were not seen.
    pub(crate) fn parts(&self, folder: &str, weight: &str, outputs: usize) -> Vec<Part<'_>> {
        let mut of_folder =
            self.components.iter().filter(|(name, _)| self.folders.get(*name).is_some_and(|f| f == folder));
        let tap = of_folder.find_map(|(_, known)| Some(&known.taps[*known.of_weight.get(weight)?]));
        let Some(tap) = tap else { return Vec::new() };
        let each = outputs / tap.patches.groups();
        let part = |block: &'_ Block| (block.group * each..(block.group + 1) * each, block.columns.clone());
        let blocks = self.blocks.get(&(folder.to_owned(), tap.weight.clone())).into_iter().flatten();
        let part = |block| {
            let (outputs, columns) = part(block);
            Part { outputs, columns, gram: &block.gram }
        };
        blocks.map(part).collect()
    }

    /// The greatest magnitude and the mean square of each channel that a weight reads, the greater of all graphs of a
    /// folder; `None` if it was not seen.
    pub(crate) fn channels(&self, folder: &str, weight: &str) -> Option<(Vec<f32>, Vec<f64>)> {
        let of_folder = self.components.iter().filter(|(name, _)| self.folders.get(*name).is_some_and(|f| f == folder));
        let mut taps = of_folder.filter_map(|(_, known)| Some(&known.taps[*known.of_weight.get(weight)?]));
        let of = |tap: &Tap| {
            let mean = |sums: &[f64]| sums.iter().sum::<f64>() / count(tap.moments.rows);
            (tap.moments.greatest.clone(), tap.moments.squares.chunks(tap.patches.each()).map(mean).collect())
        };
        let (mut greatest, mut squares): (Vec<f32>, Vec<f64>) = of(taps.next()?);
        for (more, others) in taps.map(of) {
            greatest.iter_mut().zip(more).for_each(|(most, x)| *most = most.max(x));
            squares.iter_mut().zip(others).for_each(|(mean, x)| *mean = mean.max(x));
        }
        Some((greatest, squares))
    }

    /// What the inputs of a component's layers are that read a tensor in one way.
    pub(crate) fn moments(&self, component: &str, tensor: &str, patches: &Patches) -> Option<&Moments> {
        let mut taps = self.components.get(component)?.taps.iter();
        let tap = taps.find(|tap| tap.tensor == tensor && tap.patches == *patches)?;
        Some(&tap.moments).filter(|moments| moments.rows > 0)
    }
}

impl Moments {
    fn add(&mut self, values: &[f32], rows: usize) {
        self.rows += rows as u64;
        let columns = self.sums.len().max(1);
        let parts = self.sums.par_chunks_mut(TOGETHER).zip(self.squares.par_chunks_mut(TOGETHER));
        parts.enumerate().for_each(|(index, (sums, squares))| {
            for row in values.chunks_exact(columns) {
                for ((sum, square), v) in sums.iter_mut().zip(&mut *squares).zip(&row[index * TOGETHER..]) {
                    *sum += f64::from(*v);
                    *square += f64::from(*v) * f64::from(*v);
                }
            }
        });
    }

    /// The mean of each number of a row.
    pub(crate) fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / count(self.rows)).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean needs no last digit")]
fn count(rows: u64) -> f64 {
    rows.max(1) as f64
}

/// Empty products for what a layer reads; none where an output has a single weight.
fn blocks(patches: &Patches) -> Vec<Block> {
    let each = patches.each();
    let channels = patches.channels() / patches.groups();
    let cuts = (channels * each).div_ceil(COLUMNS).max(1);
    let size = channels.div_ceil(cuts).max(1);
    let size = if each == 1 && cuts > 1 { size.next_multiple_of(CUT) } else { size };
    let starts = (0..patches.groups()).flat_map(|group| (0..channels).step_by(size).map(move |start| (group, start)));
    let block = |(group, start): (usize, usize)| {
        let end = channels.min(start + size);
        Block {
            group,
            channels: group * channels + start..group * channels + end,
            columns: start * each..end * each,
            gram: Gram::new((end - start) * each),
        }
    };
    if channels * each == 1 { Vec::new() } else { starts.map(block).collect() }
}
