//! Linear layers as 1x1 convolutions, and everything between them in their layout.
//!
//! Rows `[b*s,c]` have a twin `[b,c,1,s]`. A linear layer, an elementwise operator, a split and a layer norm are done on
//! twins; where rows come from an image, a prompt or attention heads, or go there, the twin comes and goes by a reshape
//! or one transpose. What needs the rows themselves gets them by a transpose of the twin; if nothing does, it is gone.

use std::collections::BTreeMap;

use edge_ir::{Builder, Error, Graph, Node, Rewritten, ValueId, View, rewrite};

use super::layer_norm::Norm;
use super::linear::Layer;
use super::tool;
use crate::Pass;

/// Operators of one input that work element by element.
const UNARY: &[&str] = &["Erf", "Exp", "Gelu", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh"];
/// Operators of two inputs that work element by element.
const BINARY: &[&str] = &["Add", "Div", "Mul", "Sub"];

/// The pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearAsConv {
    /// Whether layer norms are decomposed, over channels; otherwise they are done on rows.
    pub(super) decompose_layer_norm: bool,
}

impl Pass for LinearAsConv {
    fn name(&self) -> &'static str {
        "linear-as-conv"
    }

    fn about(&self) -> &'static str {
        "a linear layer is a 1x1 Conv, and what is between such layers is in their layout"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        let mut twins = Twins::default();
        rewrite(graph, limit, &mut |view, index, b| {
            let node = &view.graph.nodes[index];
            if let Some(twin) = self.on_twins(&mut twins, view, node, b)? {
                return twins.rows(node, &twin, b).map(Some);
            }
            if let Some(out) = from_twin(&twins, view, node, b)? {
                return Ok(Some(vec![out]));
            }
            if let Some(twin) = to_twin(view, node, b)? {
                twins.made.insert(node.outputs[0], twin);
            }
            Ok(None)
        })
    }
}

/// The twins of rows, by their ids in the old graph.
#[derive(Default)]
struct Twins {
    made: BTreeMap<ValueId, ValueId>,
    /// Shapes of twins that are made when they are read: those of rows that stay rows.
    later: BTreeMap<ValueId, Vec<usize>>,
}

impl Twins {
    /// The twin of rows, if they have one.
    fn find(&mut self, view: &View<'_>, b: &mut Builder, rows: ValueId) -> Result<Option<ValueId>, Error> {
        let Some([n, c, _, s]) = self.later.remove(&rows).and_then(|shape| <[usize; 4]>::try_from(shape).ok()) else {
            return Ok(self.made.get(&rows).copied());
        };
        let name = format!("{}/ToChannels", view.graph.value(rows).name);
        let x = tool::reshape(b, &format!("{name}.Reshape"), rows, &[n, 1, s, c])?;
        let twin = tool::transpose(b, &format!("{name}.Transpose"), x, &[0, 3, 1, 2])?;
        self.made.insert(rows, twin);
        Ok(Some(twin))
    }

    /// The twin of rows; without one, each row is an image of one pixel.
    fn of(&mut self, view: &View<'_>, b: &mut Builder, rows: ValueId) -> Result<ValueId, Error> {
        match (self.find(view, b, rows)?, view.shape(rows)) {
            (Some(twin), _) => Ok(twin),
            (None, [n, c]) => {
                tool::reshape(b, &format!("{}/ToChannels", view.graph.value(rows).name), rows, &[*n, *c, 1, 1])
            }
            (None, _) => Ok(rows),
        }
    }

    /// Notes the twins of a node's outputs and gives the rows.
    fn rows(&mut self, node: &Node, twins: &[ValueId], b: &mut Builder) -> Result<Vec<ValueId>, Error> {
        let mut rows = Vec::with_capacity(twins.len());
        for (output, twin) in node.outputs.iter().zip(twins) {
            self.made.insert(*output, *twin);
            let [n, c, _, s] = b.shape(*twin)[..] else { continue };
            let name = format!("{}/ToRows", node.name);
            let x = tool::transpose(b, &format!("{name}.Transpose"), *twin, &[0, 2, 3, 1])?;
            rows.push(tool::reshape(b, &format!("{name}.Reshape"), x, &[n * s, c])?);
        }
        Ok(rows)
    }
}

impl LinearAsConv {
    /// The twins of the node's outputs, if it can be done on twins.
    fn on_twins(
        self,
        twins: &mut Twins,
        view: &View<'_>,
        node: &Node,
        b: &mut Builder,
    ) -> Result<Option<Vec<ValueId>>, Error> {
        if let Some(layer) = Layer::of(view, node) {
            let x = twins.of(view, b, layer.x)?;
            let [out, channels] = layer.weight.ty.shape[..] else { return Ok(None) };
            let mut inputs = vec![x, layer.weight.reshape([out, channels, 1, 1]).add(b)?];
            if let Some(bias) = layer.bias {
                inputs.push(bias.add(b)?);
            }
            return Ok(Some(vec![b.node("Conv", &node.name, &inputs, &tool::pointwise(1))?]));
        }
        let norm = Norm::of(view, node);
        if let (Some(norm), false) = (&norm, self.decompose_layer_norm) {
            if let Some(x) = twins.made.get(&norm.x) {
                twins.later.insert(node.outputs[0], b.shape(*x).to_vec());
            }
            return Ok(None);
        }
        let name = node.op.name;
        let parts = name == "Split" && tool::is_axis(node.int("axis", 0), 1, 2);
        if norm.is_none() && !parts && !UNARY.contains(&name) && !BINARY.contains(&name) {
            return Ok(None);
        }
        let mut x = None;
        for id in node.inputs.iter().flatten() {
            x = x.or(twins.find(view, b, *id)?);
        }
        let Some(x) = x else { return Ok(None) };
        if let Some(norm) = norm {
            let channels = b.shape(x)[1];
            return Ok(Some(vec![norm.decomposed(b, &node.name, (x, 1), &[1, channels, 1, 1])?]));
        }
        let attributes: Vec<_> = node.attributes.iter().map(|(name, value)| (*name, value.clone())).collect();
        if UNARY.contains(&name) {
            return Ok(Some(vec![b.node(name, &node.name, &[x], &attributes)?]));
        }
        if parts {
            let sizes: Vec<usize> = node.outputs.iter().map(|id| view.shape(*id)[1]).collect();
            return tool::split(b, &node.name, x, 1, &sizes).map(Some);
        }
        let mut operands = Vec::with_capacity(2);
        for id in node.inputs.iter().flatten() {
            let one = view.data(*id).is_some() && view.graph.ty(*id).elements() == 1;
            let operand = if one { Some(*id) } else { twins.made.get(id).copied() };
            operands.extend(operand.filter(|id| one || b.shape(*id) == b.shape(x)));
        }
        match operands[..] {
            [left, right] => Ok(Some(vec![b.node(name, &node.name, &[left, right], &[])?])),
            _ => Ok(None),
        }
    }
}

/// The twin of rows that a reshape makes of an image, of heads, or of a prompt.
fn to_twin(view: &View<'_>, node: &Node, b: &mut Builder) -> Result<Option<ValueId>, Error> {
    let (Some(Some(x)), "Reshape") = (node.inputs.first(), node.op.name) else { return Ok(None) };
    let [rows, channels] = view.shape(node.outputs[0])[..] else { return Ok(None) };
    let name = format!("{}/ToChannels", node.name);
    if let [n, s, c] = view.shape(*x)[..] {
        if (n * s, c) != (rows, channels) {
            return Ok(None);
        }
        let x = tool::transpose(b, &format!("{name}.Transpose"), *x, &[0, 2, 1])?;
        return tool::reshape(b, &name, x, &[n, c, 1, s]).map(Some);
    }
    let Some((_, transpose)) = view.maker(*x, "Transpose") else { return Ok(None) };
    let Some(source) = transpose.inputs[0] else { return Ok(None) };
    let shape = view.shape(source);
    match (transpose.ints("perm"), shape) {
        (Some([0, 2, 3, 1]), [n, c, h, w]) if (n * h * w, *c) == (rows, channels) => {
            tool::reshape(b, &name, source, &[*n, *c, 1, h * w]).map(Some)
        }
        (Some([0, 2, 1, 3]), [n, heads, s, d]) if (n * s, heads * d) == (rows, channels) => {
            let x = tool::transpose(b, &format!("{name}.Transpose"), source, &[0, 1, 3, 2])?;
            tool::reshape(b, &name, x, &[*n, channels, 1, *s]).map(Some)
        }
        _ => Ok(None),
    }
}

/// What a move of rows to an image, to heads or to a prompt gives, from the rows' twin.
fn from_twin(twins: &Twins, view: &View<'_>, node: &Node, b: &mut Builder) -> Result<Option<ValueId>, Error> {
    let Some(Some(x)) = node.inputs.first() else { return Ok(None) };
    let out = view.shape(node.outputs[0]);
    if let ("Reshape", Some(twin)) = (node.op.name, twins.made.get(x)) {
        let [n, c, _, s] = b.shape(*twin)[..] else { return Ok(None) };
        if out == [n, c, 1, 1] && s == 1 {
            return tool::reshape(b, &node.name, *twin, out).map(Some);
        }
        if out != [n, s, c] {
            return Ok(None);
        }
        let flat = tool::reshape(b, &format!("{}/Reshape", node.module()), *twin, &[n, c, s])?;
        return tool::transpose(b, &node.name, flat, &[0, 2, 1]).map(Some);
    }
    let Some((_, reshape)) = view.maker(*x, "Reshape").filter(|_| node.op.name == "Transpose") else { return Ok(None) };
    let Some(twin) = reshape.inputs[0].and_then(|rows| twins.made.get(&rows).copied()) else { return Ok(None) };
    let [n, c, _, s] = b.shape(twin)[..] else { return Ok(None) };
    match (node.ints("perm"), view.shape(*x)) {
        // An image's rows.
        (Some([0, 3, 1, 2]), [batch, h, w, channels]) if (*batch, *channels, h * w) == (n, c, s) => {
            tool::reshape(b, &reshape.name, twin, out).map(Some)
        }
        // Heads; keys are wanted as they are.
        (Some(perm @ ([0, 2, 1, 3] | [0, 2, 3, 1])), [batch, rows, heads, d])
            if (*batch, *rows, heads * d) == (n, s, c) =>
        {
            let split = tool::reshape(b, &reshape.name, twin, &[n, *heads, *d, s])?;
            if perm == [0, 2, 3, 1] {
                return Ok(Some(split));
            }
            tool::transpose(b, &node.name, split, &[0, 1, 3, 2]).map(Some)
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, attention, check, gelu, image_of, layer_norm, linear, rows_of};
    use super::*;

    /// A transformer block on an image, as in a UNet.
    fn block(b: &mut Builder, batch: usize) -> ValueId {
        let image = b.input("image", DType::Float32, &[batch, 8, 3, 5]);
        let prompt = b.input("prompt", DType::Float32, &[batch, 4, 6]);
        let prompt = tool::reshape(b, "prompt/Reshape", prompt, &[batch * 4, 6]).expect("rows");
        let x = rows_of(b, "t", image);
        let h = layer_norm(b, "norm1", x);
        let h = attention(b, "attn1", [h, prompt], batch, 2, None);
        let x = b.node("Add", "add1", &[h, x], &[]).expect("a sum");
        let h = layer_norm(b, "norm2", x);
        let both = linear(b, "ff.0", h, 24);
        let halves = tool::split(b, "ff/Split", both, 1, &[12, 12]).expect("halves");
        let gate = gelu(b, "ff/gelu", halves[1]);
        let h = b.node("Mul", "ff/Mul", &[halves[0], gate], &[]).expect("a product");
        let h = linear(b, "ff.2", h, 8);
        let x = b.node("Add", "add2", &[h, x], &[]).expect("a sum");
        image_of(b, "t", x, [batch, 3, 5])
    }

    #[test]
    fn a_block_is_in_channels() {
        for batch in [1, 2] {
            // Transposes are left of the queries, the values, the joined heads and the prompt.
            let operators = [("Gemm", 0), ("Conv", 6), ("LayerNormalization", 0), ("Transpose", 4)];
            check(|b| block(b, batch), LinearAsConv { decompose_layer_norm: true }, EXACT, &operators);
            // And before and after each norm of rows, but for one row.
            let operators = [("Gemm", 0), ("Conv", 6), ("LayerNormalization", 2)];
            check(|b| block(b, batch), LinearAsConv { decompose_layer_norm: false }, EXACT, &operators);
        }
    }

    #[test]
    fn rows_without_an_image() {
        check(
            |b| {
                let x = b.input("x", DType::Float32, &[2, 8]);
                let h = linear(b, "a", x, 6);
                let h = b.node("Tanh", "act", &[h], &[]).expect("activated");
                let h = linear(b, "b", h, 3);
                tool::reshape(b, "image", h, &[2, 3, 1, 1]).expect("an image")
            },
            LinearAsConv { decompose_layer_norm: false },
            EXACT,
            &[("Gemm", 0), ("Conv", 2), ("Transpose", 0)],
        );
    }
}
