//! Rewrites of graphs.

pub mod fold;
