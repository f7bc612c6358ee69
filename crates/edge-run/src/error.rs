//! The errors of this crate.

use std::path::PathBuf;

use crate::tokenizer::TokenizerError;

/// What can go wrong while a model runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// tract does not take the graph, or fails on it.
    #[error("cannot {action} `{graph}`: {reason}")]
    Tract {
        /// `load` or `run`.
        action: &'static str,
        /// The graph's name.
        graph: String,
        /// What tract says.
        reason: String,
    },
    /// A component of the model cannot be opened.
    #[error("cannot open the {name}")]
    Component {
        /// The component.
        name: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A graph lacks an input or output that the pipeline needs.
    #[error("`{graph}` has no {what}")]
    Graph {
        /// The graph's name.
        graph: String,
        /// The missing thing.
        what: String,
    },
    /// A graph asks for something that the pipeline does not have.
    #[error("`{graph}` has the input `{input}`, which the pipeline does not feed")]
    Input {
        /// The graph's name.
        graph: String,
        /// The input's name.
        input: String,
    },
    /// The tokenizer and the text encoder do not go together.
    #[error("the tokenizer gives {got} tokens, the text encoder takes {expected}: is `model_max_length` right?")]
    Tokens {
        /// What the text encoder takes.
        expected: usize,
        /// What the tokenizer gives.
        got: usize,
    },
    /// The noise that was given does not last.
    #[error("the noise given ends early: the latents and each step but the last take {expected} numbers, got {got}")]
    Noise {
        /// Numbers of one latent.
        expected: usize,
        /// Numbers left.
        got: usize,
    },
    /// A tensor file cannot be used.
    #[error("`{}`: {reason}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The picture came out as numbers that are no picture.
    #[error("{component} gave NaN or infinite numbers: the model is damaged, or the guidance too strong")]
    NotFinite {
        /// The component that made them.
        component: &'static str,
    },
    /// Whoever looks at tensors does not want to go on.
    #[error(transparent)]
    Observer(Box<dyn std::error::Error + Send + Sync>),
    /// The graph is not what it should be.
    #[error(transparent)]
    Ir(#[from] edge_ir::Error),
    /// The sampler refuses.
    #[error(transparent)]
    Lcm(#[from] edge_lcm::Error),
    /// The tokenizer refuses.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The picture cannot be made.
    #[error(transparent)]
    Picture(#[from] crate::picture::PictureError),
}
