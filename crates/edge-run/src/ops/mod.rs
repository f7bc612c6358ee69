//! Operators of our own for tract, one per file, over the functions in `kernels`.
//!
//! A graph names them by operator type; tract ignores the domain of an operator, so the names are
//! ones that ONNX does not use, but for two that are refused. They take and give tensors of known shape, and keep their
//! form through tract's passes, and read weights where they lie.

mod activation;
mod attention;
mod conv;
mod geglu;
mod group_norm;
mod kernel;
mod layer_norm;
mod linear;
pub(crate) mod observe;
mod quantize;

#[cfg(test)]
mod testing;

use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::model::OnnxOpRegister;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_hir::internal::InferenceOp;

/// What tract's reader calls for a node: the operator, and outer names it closes over.
type Builder = fn(&tract_onnx::model::ParsingContext, &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Operator types and what reads their nodes.
const OPERATORS: &[(&str, Builder)] = &[
    ("DequantizeLinear", quantize::refuse),
    ("EdgeAttention", attention::build),
    ("EdgeConv", conv::build),
    ("EdgeDequantize", quantize::build_dequantize),
    ("EdgeFakeQuant", quantize::build_pair),
    ("EdgeGeglu", geglu::build),
    ("EdgeGelu", activation::build::<{ activation::GELU }>),
    ("EdgeGroupNorm", group_norm::build),
    ("EdgeLayerNorm", layer_norm::build),
    ("EdgeLinear", linear::build),
    ("EdgeObserve", observe::build),
    ("EdgeQuantize", quantize::build_quantize),
    ("EdgeQuickGelu", activation::build::<{ activation::QUICK_GELU }>),
    ("EdgeSilu", activation::build::<{ activation::SILU }>),
    ("QuantizeLinear", quantize::refuse),
];

/// Teaches tract's ONNX reader every operator of this module.
pub(crate) fn register(onnx: &mut tract_onnx::Onnx) {
    let register: &mut OnnxOpRegister = &mut onnx.op_register;
    for (name, builder) in OPERATORS {
        register.insert(name, *builder);
    }
}

/// Has tract's matrix products and the kernels use `threads` threads.
///
/// The kernels' threads are those of the process, which can be chosen once, before the first use;
/// it is an error to choose again.
pub(crate) fn set_threads(threads: usize) -> Result<(), rayon::ThreadPoolBuildError> {
    set_default_executor(Executor::multithread(threads));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()
}
