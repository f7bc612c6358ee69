//! The errors of calibration.

use edge_spec::SpecError;

use super::Shard;

/// Why statistics cannot be made, joined or used.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// A tensor has values that no range holds.
    #[error("`{tensor}` of `{component}` has {count} values that are NaN or infinite")]
    NotFinite {
        /// The component.
        component: String,
        /// The tensor.
        tensor: String,
        /// How many of its values, in one run.
        count: u64,
    },
    /// The statistics are of another model.
    #[error("the statistics are of another `{component}`: its SHA-256 is {expected}, that of this model's is {found}")]
    OtherModel {
        /// The component.
        component: String,
        /// What the statistics are of.
        expected: String,
        /// What they are asked for.
        found: String,
    },
    /// The statistics say nothing of a component.
    #[error("the statistics say nothing of `{component}`, but of {known}")]
    UnknownComponent {
        /// The component.
        component: String,
        /// What they do tell of.
        known: String,
    },
    /// Parts of different runs.
    #[error("`{other}` is no part of the same run as `{first}`: {what} is {found}, expected {expected}")]
    Foreign {
        /// The file that was read first.
        first: String,
        /// The file that does not fit.
        other: String,
        /// What is different.
        what: String,
        /// As the first file has it.
        expected: String,
        /// As the other file has it.
        found: String,
    },
    /// The same part twice.
    #[error("`{first}` and `{other}` are both part {shard}")]
    Overlap {
        /// The file that was read first.
        first: String,
        /// The other file.
        other: String,
        /// The part.
        shard: Shard,
    },
    /// Not all parts.
    #[error("of {of} parts, {} missing: {}", count(shards), list(shards))]
    Missing {
        /// Into how many parts the run was split.
        of: u32,
        /// Those that were not given.
        shards: Vec<Shard>,
    },
    /// Nothing was given to join.
    #[error("there is nothing to join")]
    Nothing,
    /// A graph's weights cannot be read.
    #[error(transparent)]
    Ir(#[from] edge_ir::Error),
    /// A file cannot be used.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

fn count(shards: &[Shard]) -> String {
    if shards.len() == 1 { "1 is".into() } else { format!("{} are", shards.len()) }
}

/// The first few, so that a message stays a line.
fn list(shards: &[Shard]) -> String {
    let shown: Vec<String> = shards.iter().take(8).map(Shard::to_string).collect();
    shown.join(", ") + if shards.len() > 8 { ", ..." } else { "" }
}
