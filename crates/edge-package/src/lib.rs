//! Packs a verified model for an NPU SDK.
