//! `accept.py`: runs the golden inputs in an SDK's Python interface and compares, graph by graph.

/// The script, without the function that loads a graph.
const TEMPLATE: &str = include_str!("accept.py");
/// Where that function goes.
const PLACE: &str = "# The SDK's `load` stands here.\n";

/// The script with an SDK's `load`, and the device that it runs on unless told otherwise.
pub(super) fn script(load: &str, device: &str) -> String {
    TEMPLATE.replace(PLACE, load).replace("DEVICE", device)
}
