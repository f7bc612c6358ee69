//! Lowerings: one file for each form that a target can ask for, and the check of what is left.

mod attention;
mod channels;
mod geglu;
mod gelu;
mod group_norm;
mod index;
mod layer_norm;
mod linear;
mod norm_affine;
mod sigmoid;
mod skip_concat;
mod tool;
mod upsample;

#[cfg(test)]
mod testing;

use edge_ir::Graph;
use edge_spec::target::{
    Affine, Attention, Geglu, Gelu, GraphForm, GroupNorm, Index, LayerNorm, Linear, Scale, Sigmoid, SkipConcat, Target,
    Upsample,
};

use crate::{CommonSubexpressions, FoldConstants, Pass, SimplifyMoves};
use gelu::GeluForm;

/// A lowering: the line of a target's `graph` that asks for it, and the pass, if a target has that line.
pub struct Lowering {
    /// `field: value`.
    pub option: &'static str,
    /// Operators that it takes out of graphs.
    pub removes: &'static [&'static str],
    /// The pass that this form asks for.
    pub pass: fn(&GraphForm) -> Option<Box<dyn Pass>>,
}

/// All lowerings, in the order in which they run. What a later one recognizes, an earlier one may have made.
pub const LOWERINGS: &[Lowering] = &[
    Lowering {
        option: "gelu: native",
        removes: &["Erf"],
        pass: |f| when(f.gelu == Gelu::Native, gelu::GeluAs(GeluForm::Native)),
    },
    Lowering {
        option: "gelu: tanh",
        removes: &["Erf"],
        pass: |f| when(f.gelu == Gelu::Tanh, gelu::GeluAs(GeluForm::Tanh)),
    },
    Lowering {
        option: "gelu: sigmoid",
        removes: &["Erf"],
        pass: |f| when(f.gelu == Gelu::Sigmoid, gelu::GeluAs(GeluForm::Sigmoid)),
    },
    Lowering {
        option: "geglu: two-projections",
        removes: &[],
        pass: |f| when(f.geglu == Geglu::TwoProjections, geglu::GegluAsTwo),
    },
    Lowering {
        option: "sigmoid: tanh",
        removes: &["Sigmoid"],
        pass: |f| when(f.sigmoid == Sigmoid::Tanh, sigmoid::SigmoidAsTanh),
    },
    Lowering {
        option: "attention_scale: weights",
        removes: &[],
        pass: |f| when(f.attention_scale == Scale::Weights, attention::ScaleInWeights),
    },
    Lowering {
        option: "attention: per-head",
        removes: &[],
        pass: |f| when(f.attention == Attention::PerHead, attention::AttentionPerHead),
    },
    Lowering {
        option: "query_chunk: 1024",
        removes: &[],
        pass: |f| f.query_chunk.and_then(|rows| when(true, attention::AttentionInChunks { rows })),
    },
    Lowering {
        option: "skip_concat: two-convs",
        removes: &[],
        pass: |f| when(f.skip_concat == SkipConcat::TwoConvs, skip_concat::SkipConcatAsConvs),
    },
    Lowering {
        option: "upsample: depth-to-space",
        removes: &["Resize"],
        pass: |f| when(f.upsample == Upsample::DepthToSpace, upsample::UpsampleAsDepthToSpace),
    },
    Lowering {
        option: "group_norm: native",
        removes: &["InstanceNormalization"],
        pass: |f| when(f.group_norm == GroupNorm::Native, group_norm::GroupNormNative),
    },
    Lowering {
        option: "group_norm: decomposed",
        removes: &["InstanceNormalization"],
        pass: |f| when(f.group_norm == GroupNorm::Decomposed, group_norm::GroupNormDecomposed),
    },
    Lowering {
        option: "norm_affine: conv",
        removes: &[],
        pass: |f| when(f.norm_affine == Affine::Conv, norm_affine::AffineAsConv),
    },
    Lowering {
        option: "linear: conv1x1",
        removes: &["Gemm"],
        pass: |f| {
            let decompose_layer_norm = f.layer_norm == LayerNorm::Decomposed;
            when(f.linear == Linear::Conv1x1, channels::LinearAsConv { decompose_layer_norm })
        },
    },
    Lowering {
        option: "linear: matmul",
        removes: &["Gemm"],
        pass: |f| when(f.linear == Linear::Matmul, linear::LinearAsMatmul),
    },
    Lowering {
        option: "layer_norm: decomposed",
        removes: &["LayerNormalization"],
        pass: |f| when(f.layer_norm == LayerNorm::Decomposed, layer_norm::LayerNormDecomposed),
    },
    Lowering { option: "index: int32", removes: &[], pass: |f| when(f.index == Index::Int32, index::IndexAsInt32) },
];

/// The passes for a target: its lowerings, and what clears up after them.
pub fn passes(form: &GraphForm) -> Vec<Box<dyn Pass>> {
    let mut passes: Vec<Box<dyn Pass>> = LOWERINGS.iter().filter_map(|lowering| (lowering.pass)(form)).collect();
    if !passes.is_empty() {
        passes.push(Box::new(SimplifyMoves));
        passes.push(Box::new(FoldConstants));
        passes.push(Box::new(CommonSubexpressions));
    }
    passes
}

fn when(asked: bool, pass: impl Pass + 'static) -> Option<Box<dyn Pass>> {
    asked.then(|| Box::new(pass) as Box<dyn Pass>)
}

/// A node that a target does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The node's name.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// Why.
    pub reason: String,
}

/// The nodes that the target does not take, in order.
pub fn unsupported(graph: &Graph, target: &Target) -> Vec<Unsupported> {
    let form = &target.graph;
    let reason = |node: &edge_ir::Node| {
        let ids = node.inputs.iter().flatten().chain(&node.outputs);
        let rank = ids.map(|id| graph.ty(*id).shape.len()).max().unwrap_or(0);
        if !target.takes(node.op.name) {
            Some(format!("`{}` is not among the target's operators", node.op.name))
        } else if node.op.since > form.opset {
            Some(format!("`{}` needs opset {}, the target's is {}", node.op.name, node.op.since, form.opset))
        } else if rank > form.max_rank {
            Some(format!("a tensor has {rank} dimensions, the target takes {}", form.max_rank))
        } else {
            None
        }
    };
    let row =
        |node: &edge_ir::Node| Some(Unsupported { node: node.name.clone(), op: node.op.name, reason: reason(node)? });
    graph.nodes.iter().filter_map(row).collect()
}

/// The first of a target's operators that edgetool never writes: a misspelt name, or one to be added to the table.
pub fn unknown_operator(target: &Target) -> Option<&str> {
    target.ops.iter().find(|op| edge_ir::ops::find("", op).is_none()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(line: &str) -> GraphForm {
        let text = format!(
            "schema: target/v1\nname: t\nabout: a\ngraph:\n  opset: 21\n  max_rank: 4\n  {line}\nops: [Conv]\n"
        );
        Target::parse(&text, "t").expect("a target").graph
    }

    #[test]
    fn every_option_asks_for_its_pass() {
        for lowering in LOWERINGS {
            let asked = form(lowering.option);
            assert!((lowering.pass)(&asked).is_some(), "{}", lowering.option);
            let names: Vec<_> = LOWERINGS.iter().filter_map(|l| (l.pass)(&asked)).map(|p| p.name()).collect();
            assert_eq!(names.len(), 1, "{}: {names:?}", lowering.option);
        }
        assert!(passes(&form("")).is_empty());
    }

    #[test]
    fn the_document_lists_every_lowering() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/targets.md");
        let text = std::fs::read_to_string(path).expect("the document");
        let listed: Vec<&str> = text.lines().filter(|l| l.starts_with("| `") && l.matches('`').count() == 4).collect();
        let row = |lowering: &Lowering| {
            let pass = (lowering.pass)(&form(lowering.option)).expect("its pass");
            format!("| `{}` | `{}` | {} |", lowering.option, pass.name(), pass.about())
        };
        assert_eq!(listed, LOWERINGS.iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn built_in_targets_name_known_operators() {
        for name in Target::names() {
            let target = Target::find(&name).expect("a target");
            assert_eq!(unknown_operator(&target), None, "{name}");
            assert!(edge_ir::onnx::OPSETS.iter().any(|(opset, _)| *opset == target.graph.opset), "{name}");
        }
    }
}
