//! What each operator's inputs are to a quantizer, and what is known of its output. An operator that is not in the table
//! stays in float.

use edge_ir::{Graph, Node};

use crate::Range;

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A tensor whose values differ from run to run, or a constant that stands in its place.
    Activation,
    /// The weight of a layer, if it is constant: its output channels have this axis.
    Weight(usize),
    /// The gain of a norm.
    Gain,
    /// What is added to each output channel of a layer.
    Bias,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Rule {
    op: &'static str,
    operands: &'static [Operand],
    /// Whether all inputs are like the first.
    many: bool,
    /// Whether it only moves elements: its inputs and outputs have one encoding.
    pub(crate) moves: bool,
    /// The values that it can give, where the maths says so.
    pub(crate) gives: Option<Range>,
}

const A: Operand = Operand::Activation;
const UNIT: Option<Range> = Some(Range { min: 0.0, max: 1.0 });
const BOTH: Option<Range> = Some(Range { min: -1.0, max: 1.0 });

static RULES: &[Rule] = &[
    computes("Add", &[A, A]),
    computes("Sub", &[A, A]),
    computes("Mul", &[A, A]),
    computes("Div", &[A, A]),
    computes("Conv", &[A, Operand::Weight(0), Operand::Bias]),
    // `transB` makes channels the first axis.
    computes("Gemm", &[A, Operand::Weight(0), Operand::Bias]),
    computes("MatMul", &[A, Operand::Weight(1)]),
    computes("InstanceNormalization", &[A, Operand::Gain, Operand::Bias]),
    computes("GroupNormalization", &[A, Operand::Gain, Operand::Bias]),
    computes("LayerNormalization", &[A, Operand::Gain, Operand::Bias]),
    computes("ReduceMean", &[A]),
    computes("Relu", &[A]),
    computes("Sqrt", &[A]),
    computes("Gelu", &[A]),
    computes("Clip", &[A]),
    bounded("Softmax", UNIT),
    bounded("Sigmoid", UNIT),
    bounded("Tanh", BOTH),
    bounded("Erf", BOTH),
    moves("Reshape", false),
    moves("Transpose", false),
    moves("Split", false),
    moves("Slice", false),
    moves("Gather", false),
    moves("Resize", false),
    moves("DepthToSpace", false),
    moves("Concat", true),
];

const fn computes(op: &'static str, operands: &'static [Operand]) -> Rule {
    Rule { op, operands, many: false, moves: false, gives: None }
}

const fn bounded(op: &'static str, gives: Option<Range>) -> Rule {
    Rule { op, operands: &[A], many: false, moves: false, gives }
}

const fn moves(op: &'static str, many: bool) -> Rule {
    Rule { op, operands: &[A], many, moves: true, gives: None }
}

impl Rule {
    /// Whether it moves the elements of several tensors into one.
    pub(crate) fn joins(&self) -> bool {
        self.moves && self.many
    }

    /// The rule for a node; `None` if it stays in float.
    pub(crate) fn of(node: &Node) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.op == node.op.name && node.op.domain.is_empty())
    }

    /// What input `index` is; `None` for shapes, axes and the like.
    pub(crate) fn operand(&self, graph: &Graph, node: &Node, index: usize) -> Option<Operand> {
        let operand = if self.many { self.operands[0] } else { *self.operands.get(index)? };
        let value = graph.value((*node.inputs.get(index)?)?);
        match operand {
            Operand::Weight(_) if value.data.is_none() => Some(Operand::Activation),
            // A product with a stack of matrices has no layer's weight.
            Operand::Weight(axis) if self.op == "MatMul" && value.ty.shape.len() != axis + 1 => {
                Some(Operand::Activation)
            }
            Operand::Weight(_) if self.op == "Gemm" && node.int("transB", 0) == 0 => Some(Operand::Weight(1)),
            other => Some(other),
        }
    }
}
