//! A graph under construction together with the weights that it reads.

use std::collections::{BTreeMap, BTreeSet};

use edge_ir::{Attribute, Builder, Checked, DType, Data, Graph, TensorType, ValueId};

use crate::source::{Document, Part};
use crate::weights::Weights;
use crate::{Error, TensorProblem};

/// What an import is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Image height in pixels; the model's own if absent.
    pub height: Option<usize>,
    /// Image width in pixels; the model's own if absent.
    pub width: Option<usize>,
    /// Images per run; 1 if absent.
    pub batch: Option<usize>,
    /// Images per run of the UNet, where it runs on more than one latent for each image; as many if absent.
    pub unet_batch: Option<usize>,
    /// Shape of the UNet's timestep.
    pub timestep: TimestepShape,
    /// Type of the weights in the graph.
    pub weights: WeightType,
}

/// Shape of the UNet's `timestep` input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestepShape {
    /// `[1]`: one for all images, as every sampler has it.
    #[default]
    Shared,
    /// `[batch]`.
    PerImage,
}

/// Type of the weights in the graph. Arithmetic is in `float32` either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightType {
    /// As in the checkpoint; 16-bit weights are followed by a Cast.
    #[default]
    Stored,
    /// `float32`.
    Float32,
}

/// The sizes that all components share, in elements of a latent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) batch: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) factor: usize,
    pub(crate) timestep: TimestepShape,
    pub(crate) weights: WeightType,
}

impl Size {
    /// The sizes asked for, or else the model's own.
    pub(crate) fn new(
        options: Options,
        own: Option<[usize; 2]>,
        factor: usize,
        unet: &Document,
    ) -> Result<Self, Error> {
        let side = |what, asked: Option<usize>, own: Option<usize>| match (asked, own) {
            (Some(pixels), _) if pixels == 0 || pixels % factor != 0 => {
                Err(Error::Size { what, found: pixels, factor })
            }
            (Some(pixels), _) => Ok(pixels / factor),
            (None, Some(own)) => Ok(own),
            (None, None) => Err(Error::field(&unet.path, "sample_size", "absent", format!("a size, or `--{what}`"))),
        };
        Ok(Self {
            batch: options.batch.unwrap_or(1).max(1),
            height: side("height", options.height, own.map(|s| s[0]))?,
            width: side("width", options.width, own.map(|s| s[1]))?,
            factor,
            timestep: options.timestep,
            weights: options.weights,
        })
    }
}

/// A graph under construction. Layers are methods, one file each below `arch/layers`.
pub(crate) struct Net<'a> {
    pub(crate) b: Builder,
    component: &'a str,
    weights: &'a Weights,
    weight_type: WeightType,
    made: BTreeMap<(String, Vec<usize>), ValueId>,
    used: BTreeSet<String>,
    problems: Vec<TensorProblem>,
}

impl<'a> Net<'a> {
    /// An empty graph that reads the weights of `part`.
    pub(crate) fn new(component: &'a str, part: &'a Part, size: Size) -> Self {
        Self {
            b: Builder::new(component),
            component,
            weights: &part.weights,
            weight_type: size.weights,
            made: BTreeMap::new(),
            used: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Ends construction: declares the output and gives the graph and the names of the tensors that it reads.
    pub(crate) fn finish(mut self, output: &str, id: ValueId) -> Result<(Checked<Graph>, BTreeSet<String>), Error> {
        if !self.problems.is_empty() {
            return Err(Error::Tensors {
                component: self.component.to_owned(),
                path: self.weights.path.clone(),
                problems: self.problems,
            });
        }
        self.b.output(output, id);
        Ok((self.b.finish()?, self.used))
    }

    /// The weight `name` in `float32`, stored with the shape in which it is used.
    pub(crate) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<ValueId, Error> {
        self.weight_as(name, shape, shape)
    }

    /// The weight `name`, stored with shape `stored` and used with shape `used`, the same bytes.
    pub(crate) fn weight_as(&mut self, name: &str, stored: &[usize], used: &[usize]) -> Result<ValueId, Error> {
        let key = (name.to_owned(), used.to_vec());
        if let Some(id) = self.made.get(&key) {
            return Ok(*id);
        }
        let (dtype, data) = self.look_up(name, stored);
        let id = self.b.weight(name, TensorType::new(dtype, used), data);
        let to = Attribute::Int(i64::from(DType::Float32.onnx()));
        let id = if dtype == DType::Float32 {
            id
        } else {
            self.b.node("Cast", &format!("{name}/Cast"), &[id], &[("to", to)])?
        };
        self.made.insert(key, id);
        Ok(id)
    }

    /// The weight's type and bytes; if something is wrong with it, that is noted, and the answer stands in.
    fn look_up(&mut self, name: &str, expected: &[usize]) -> (DType, Data) {
        let nothing = (DType::Float32, Data::f32s(&[]));
        let Some((key, stored)) = self.weights.find(name) else {
            self.problems.push(TensorProblem::Missing { name: name.to_owned(), expected: expected.to_vec() });
            return nothing;
        };
        self.used.insert(key.clone());
        if without_ones(&stored.shape) != without_ones(expected) {
            let (expected, found) = (expected.to_vec(), stored.shape.clone());
            self.problems.push(TensorProblem::Shape { name: key.clone(), expected, found });
            return nothing;
        }
        match &stored.ty {
            Err(found) => {
                self.problems.push(TensorProblem::Type { name: key.clone(), found: found.clone() });
                nothing
            }
            Ok(ty) if self.weight_type == WeightType::Float32 => {
                stored.data.clone().cast(ty.dtype, DType::Float32).map_or(nothing, |data| (DType::Float32, data))
            }
            Ok(ty) => (ty.dtype, stored.data.clone()),
        }
    }
}

/// A linear layer and a 1x1 convolution hold the same bytes: `[out,in]` and `[out,in,1,1]`.
fn without_ones(shape: &[usize]) -> &[usize] {
    match shape {
        [_, _, 1, 1] => &shape[..2],
        _ => shape,
    }
}
