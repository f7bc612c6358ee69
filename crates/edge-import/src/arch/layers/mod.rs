//! Layers that several architectures share, as methods of [`crate::net::Net`]. The first argument is the module's path,
//! under which its weights are stored and its nodes are named.

mod activation;
mod attention;
mod basic;
mod norm;
mod resnet;

pub(crate) use attention::Attention;
pub(crate) use resnet::Resnet;
