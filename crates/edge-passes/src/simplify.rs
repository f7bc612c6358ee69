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
