//! The errors of this crate.

/// What can go wrong while a graph is quantized.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor is to be quantized, and nothing says what values it takes.
    #[error("`{component}`: nothing says what values `{tensor}` takes")]
    NoRange {
        /// The graph's name.
        component: String,
        /// The tensor's.
        tensor: String,
    },
    /// A weight cannot be stood for by integers.
    #[error("`{component}`: the weight `{tensor}` holds NaN or infinite numbers")]
    NotFinite {
        /// The graph's name.
        component: String,
        /// The tensor's.
        tensor: String,
    },
    /// An opset lacks a type.
    #[error("`{component}`: opset {opset} has no quantized tensors of {dtype}, opset 21 has")]
    Opset {
        /// The graph's name.
        component: String,
        /// The opset.
        opset: u32,
        /// The type.
        dtype: edge_ir::DType,
    },
    /// A quantized graph is not one that a float graph stands behind.
    #[error("`{component}`: the output `{tensor}` is nothing but integers of another input or output")]
    NoFloatForm {
        /// The graph's name.
        component: String,
        /// The tensor's.
        tensor: String,
    },
    /// The graph is not what it should be.
    #[error(transparent)]
    Ir(#[from] edge_ir::Error),
}
