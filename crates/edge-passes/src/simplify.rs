//! Moves that undo or follow one another become one, or none.

use edge_ir::{Attribute, Builder, Error, Graph, Node, Rewritten, ValueId, View, rewrite};

use crate::Pass;

/// The pass.
#[derive(Clone, Copy, Debug)]
pub struct SimplifyMoves;

impl Pass for SimplifyMoves {
    fn name(&self) -> &'static str {
        "simplify-moves"
    }

    fn about(&self) -> &'static str {
        "Reshape and Transpose that follow one another become one, or none"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let node = &view.graph.nodes[index];
            // An output's name must stay: it is not replaced by another value.
            let is_output = node.outputs.iter().any(|id| view.graph.outputs.contains(id));
            let new = match node.op.name {
                "Reshape" => reshape(view, node, b, is_output)?,
                "Transpose" => transpose(view, node, b, is_output)?,
                _ => None,
            };
            Ok(new.map(|id| vec![id]))
        })
    }
}

/// A reshape to the same shape is nothing; one of a reshape is one of what that reshapes.
fn reshape(view: &View<'_>, node: &Node, b: &mut Builder, is_output: bool) -> Result<Option<ValueId>, Error> {
    let (Some(Some(x)), Some(Some(shape))) = (node.inputs.first(), node.inputs.get(1)) else { return Ok(None) };
    if view.shape(*x) == view.shape(node.outputs[0]) && !is_output {
        return Ok(Some(*x));
    }
    let inner = view.maker(*x, "Reshape").and_then(|(_, n)| n.inputs[0]);
    inner.map(|inner| b.node("Reshape", &node.name, &[inner, *shape], &[])).transpose()
}

/// A transpose that keeps the order is nothing; one of a transpose is one of what that transposes; one that only moves
/// dimensions of one element is a reshape.
fn transpose(view: &View<'_>, node: &Node, b: &mut Builder, is_output: bool) -> Result<Option<ValueId>, Error> {
    let (Some(Some(x)), Some(perm)) = (node.inputs.first(), permutation(node)) else { return Ok(None) };
    if perm.is_sorted() && !is_output {
        return Ok(Some(*x));
    }
    let shape = view.shape(*x);
    if perm.iter().filter(|p| shape[**p] != 1).is_sorted() {
        let to: Vec<i64> = perm.iter().map(|p| i64::try_from(shape[*p]).unwrap_or(i64::MAX)).collect();
        let to = b.ints(&to);
        return b.node("Reshape", &node.name, &[*x, to], &[]).map(Some);
    }
    let Some((_, inner)) = view.maker(*x, "Transpose") else { return Ok(None) };
    let (Some(source), Some(first)) = (inner.inputs[0], permutation(inner)) else { return Ok(None) };
    let both: Vec<i64> = perm.iter().map(|p| i64::try_from(first[*p]).unwrap_or(0)).collect();
    b.node("Transpose", &node.name, &[source], &[("perm", Attribute::Ints(both))]).map(Some)
}

fn permutation(node: &Node) -> Option<Vec<usize>> {
    node.ints("perm")?.iter().map(|p| usize::try_from(*p).ok()).collect()
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::*;
    use crate::Driver;

    /// Moves a tensor `[2,3,1,4]` and counts what is left; a `Tanh` follows, so that the end is no output.
    fn check(moves: &[(&str, &[i64])], expect: &[&str]) {
        let mut b = Builder::new("g");
        let mut x = b.input("x", DType::Float32, &[2, 3, 1, 4]);
        for (index, (op, numbers)) in moves.iter().enumerate() {
            let name = format!("{op}{index}");
            x = if *op == "Reshape" {
                let shape = b.ints(numbers);
                b.node(op, &name, &[x, shape], &[]).expect("a move")
            } else {
                b.node(op, &name, &[x], &[("perm", Attribute::Ints(numbers.to_vec()))]).expect("a move")
            };
        }
        let y = b.node("Tanh", "y", &[x], &[]).expect("a number");
        b.output("out", y);
        let graph = b.finish().expect("a graph");
        let done = Driver::default().run(&[Box::new(SimplifyMoves)], graph).expect("a rewrite");
        let operators: Vec<_> = done.nodes.iter().map(|n| n.op.name).filter(|op| *op != "Tanh").collect();
        assert_eq!(operators, expect, "{moves:?}");
    }

    #[test]
    fn moves_that_follow_one_another() {
        check(&[("Transpose", &[0, 2, 3, 1]), ("Transpose", &[0, 3, 1, 2])], &[]);
        check(&[("Transpose", &[1, 0, 2, 3]), ("Transpose", &[0, 3, 1, 2])], &["Transpose"]);
        check(&[("Transpose", &[0, 2, 1, 3])], &["Reshape"]);
        check(&[("Reshape", &[6, 4]), ("Reshape", &[24]), ("Reshape", &[3, 8])], &["Reshape"]);
        check(&[("Reshape", &[6, 4]), ("Reshape", &[2, 3, 1, 4])], &[]);
        check(
            &[("Reshape", &[6, 4]), ("Transpose", &[1, 0]), ("Reshape", &[2, 12])],
            &["Reshape", "Transpose", "Reshape"],
        );
    }
}
