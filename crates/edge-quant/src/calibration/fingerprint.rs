//! What tells one graph from another.

use edge_ir::{Checked, Graph};
use edge_spec::Hasher;

/// The SHA-256, in hexadecimal, of a graph: of its nodes, its tensors' names and types, and the content of its weights,
/// wherever they are stored. Memory use does not grow with the weights.
///
/// # Errors
/// If weights cannot be read.
pub fn fingerprint(graph: &Checked<Graph>) -> Result<String, edge_ir::Error> {
    let mut hash = Hasher::default();
    // Sorted, the lines do not tell in which order a file lists its tensors.
    let text = edge_ir::dump(graph);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    for line in lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    let mut weights: Vec<_> = graph.initializers().map(|(_, value, data)| (&value.name, data)).collect();
    weights.sort_unstable_by_key(|(name, _)| *name);
    for (_, data) in weights {
        data.stream(&mut |chunk| {
            hash.update(chunk);
            Ok(())
        })?;
    }
    Ok(hash.finish())
}

#[cfg(test)]
mod tests {
    use edge_ir::{Builder, DType};

    use super::*;

    fn of(node: &str, weight: f32) -> String {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[2]);
        let w = b.floats("w", &[2], &[1.0, weight]);
        let y = b.node("Add", node, &[x, w], &[]).unwrap();
        b.output("y", y);
        fingerprint(&b.finish().unwrap()).unwrap()
    }

    #[test]
    fn weights_and_nodes_count() {
        assert_eq!(of("a", 1.0), of("a", 1.0));
        assert_ne!(of("a", 1.0), of("a", 1.000_000_1));
        assert_ne!(of("a", 1.0), of("b", 1.0));
    }
}
