//! Steps that many lowerings take.

use edge_ir::{Attribute, Builder, DType, Data, Error, TensorType, ValueId, View};

/// A weight as it is stored: 16-bit ones are followed by a `Cast` in the graph.
#[derive(Clone)]
pub(super) struct Weight {
    name: String,
    pub(super) ty: TensorType,
    data: Data,
}

impl Weight {
    /// The weight or constant that this value is, directly or through a cast to `float32`.
    pub(super) fn of(view: &View<'_>, id: ValueId) -> Option<Self> {
        let stored = match view.maker(id, "Cast") {
            Some((_, cast)) if view.graph.ty(id).dtype == DType::Float32 => (*cast.inputs.first()?)?,
            _ => id,
        };
        let value = view.graph.value(stored);
        Some(Self { name: value.name.clone(), ty: value.ty.clone(), data: value.data.clone()? })
    }

    /// The same bytes in another shape.
    pub(super) fn reshape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.ty.shape = shape.into();
        self
    }

    /// Indices `start..start + len` along an axis; the name gets a suffix.
    pub(super) fn part(&self, axis: usize, start: usize, len: usize, suffix: &str) -> Option<Self> {
        let data = self.data.slice(&self.ty.shape, axis, start..start + len, self.ty.dtype.bytes(1))?;
        let mut ty = self.ty.clone();
        ty.shape[axis] = len;
        Some(Self { name: format!("{}_{suffix}", self.name), ty, data })
    }

    /// A matrix with rows and columns exchanged.
    pub(super) fn transpose(&self) -> Option<Self> {
        let [rows, columns] = self.ty.shape[..] else { return None };
        let data = self.data.transpose(rows, columns, self.ty.dtype.bytes(1))?;
        Some(Self { name: self.name.clone(), ty: TensorType::new(self.ty.dtype, [columns, rows]), data })
    }

    /// Times a factor, in `float32`: 16 bits would round again.
    pub(super) fn scale(&self, factor: f32) -> Option<Self> {
        let data = self.data.clone().cast(self.ty.dtype, DType::Float32)?.scale(factor);
        Some(Self { name: self.name.clone(), ty: TensorType::new(DType::Float32, self.ty.shape.clone()), data })
    }

    /// Adds it to a graph; the value is `float32`.
    pub(super) fn add(self, b: &mut Builder) -> Result<ValueId, Error> {
        let cast = self.ty.dtype != DType::Float32;
        let id = b.weight(&self.name, self.ty, self.data);
        if !cast {
            return Ok(id);
        }
        let to = Attribute::Int(i64::from(DType::Float32.onnx()));
        b.node("Cast", &format!("{}/Cast", self.name), &[id], &[("to", to)])
    }
}

/// A constant of one number.
pub(super) fn scalar(b: &mut Builder, number: f32) -> ValueId {
    b.floats(&format!("scalar_{number}"), &[1], &[number])
}

/// The same elements in another shape.
pub(super) fn reshape(b: &mut Builder, name: &str, x: ValueId, shape: &[usize]) -> Result<ValueId, Error> {
    let shape = b.ints(&signed(shape));
    b.node("Reshape", name, &[x, shape], &[])
}

/// The dimensions in another order.
pub(super) fn transpose(b: &mut Builder, name: &str, x: ValueId, perm: &[usize]) -> Result<ValueId, Error> {
    b.node("Transpose", name, &[x], &[("perm", Attribute::Ints(signed(perm)))])
}

/// Parts of these sizes along an axis.
pub(super) fn split(
    b: &mut Builder,
    name: &str,
    x: ValueId,
    axis: usize,
    sizes: &[usize],
) -> Result<Vec<ValueId>, Error> {
    let sizes = b.ints(&signed(sizes));
    b.nodes("Split", name, vec![Some(x), Some(sizes)], &[("axis", Attribute::Int(signed(&[axis])[0]))])
}

/// Joined along an axis.
pub(super) fn concat(b: &mut Builder, name: &str, parts: &[ValueId], axis: usize) -> Result<ValueId, Error> {
    b.node("Concat", name, parts, &[("axis", Attribute::Int(signed(&[axis])[0]))])
}

/// The mean over axes, which stay with one element.
pub(super) fn mean(b: &mut Builder, name: &str, x: ValueId, axes: &[usize]) -> Result<ValueId, Error> {
    let axes = b.ints(&signed(axes));
    b.node("ReduceMean", name, &[x, axes], &[("keepdims", Attribute::Int(1))])
}

/// `(x - mean) / sqrt(variance + epsilon)` over axes.
pub(super) fn normalize(
    b: &mut Builder,
    name: &str,
    x: ValueId,
    axes: &[usize],
    epsilon: f32,
) -> Result<ValueId, Error> {
    let step = |step: &str| format!("{name}/{step}");
    let center = mean(b, &step("ReduceMean"), x, axes)?;
    let apart = b.node("Sub", &step("Sub"), &[x, center], &[])?;
    let square = b.node("Mul", &step("Mul.square"), &[apart, apart], &[])?;
    let variance = mean(b, &step("ReduceMean.variance"), square, axes)?;
    let epsilon = scalar(b, epsilon);
    let positive = b.node("Add", &step("Add.epsilon"), &[variance, epsilon], &[])?;
    let root = b.node("Sqrt", &step("Sqrt"), &[positive], &[])?;
    b.node("Div", &step("Div"), &[apart, root], &[])
}

/// A dense 1x1 convolution's attributes.
pub(super) fn pointwise(groups: usize) -> Vec<(&'static str, Attribute)> {
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    let mut attributes = vec![("kernel_shape", ints(&[1, 1])), ("strides", ints(&[1, 1])), ("pads", ints(&[0; 4]))];
    if groups > 1 {
        attributes.push(("group", Attribute::Int(signed(&[groups])[0])));
    }
    attributes
}

/// Sizes as ONNX counts them.
pub(super) fn signed(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|s| i64::try_from(*s).unwrap_or(i64::MAX)).collect()
}

/// Whether an `axis` attribute names this axis of a tensor.
pub(super) fn is_axis(axis: i64, expected: usize, rank: usize) -> bool {
    let signed = |v: usize| i64::try_from(v).unwrap_or(i64::MAX);
    axis == signed(expected) || axis == signed(expected) - signed(rank)
}

/// Whether two numbers are the same, bit for bit.
pub(super) fn is(number: f32, expected: f32) -> bool {
    number.to_bits() == expected.to_bits()
}
