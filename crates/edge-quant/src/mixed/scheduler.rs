//! A repair of the scheduler's step around a quantized network: two factors, of the sample's term and of the output's.
//!
//! A step is `next = A x + B o + C z`. The output `o` of a quantized network errs, and part of the error is a matter of
//! scale. `next = a A x + b B o + C z` with the `a` and `b` that bring it nearest to what the float network makes (least
//! squares) costs nothing at run time: `A` and `B` are constants of the graph. After Q-Sched (arXiv 2509.01624), which
//! searches a grid.

use std::collections::BTreeMap;

use edge_ir::{Data, Graph, Node, ValueId};

use crate::Range;

/// The factors of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Of the sample's term.
    pub sample: f64,
    /// Of the output's term.
    pub output: f64,
}

/// What the factors follow from: sums over all elements of all pictures, in the order in which they are added.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    uu: f64,
    uv: f64,
    vv: f64,
    uy: f64,
    vy: f64,
}

/// How much of a sum of squares the two terms must have apart from each other for their factors to be told apart.
const APART: f64 = 1e-9;

impl Sums {
    /// Adds a picture: `u = A x` and `v = B o` as the quantized model has them, and `y`, what `u + v` is to be.
    pub fn add(&mut self, u: f64, v: f64, y: f64) {
        self.uu += u * u;
        self.uv += u * v;
        self.vv += v * v;
        self.uy += u * y;
        self.vy += v * y;
    }

    /// The factors with the least square error; 1 where nothing tells them apart.
    pub fn fit(&self) -> Fit {
        let determinant = self.uu * self.vv - self.uv * self.uv;
        let apart = determinant > APART * self.uu * self.vv;
        if !apart {
            return Fit { sample: 1.0, output: 1.0 };
        }
        let sample = (self.uy * self.vv - self.vy * self.uv) / determinant;
        let output = (self.vy * self.uu - self.uy * self.uv) / determinant;
        Fit { sample, output }
    }
}

impl Fit {
    /// Whether nothing changes.
    pub fn is_one(&self) -> bool {
        [self.sample, self.output].iter().all(|f| f.to_bits() == 1.0_f64.to_bits())
    }

    /// Puts the factors into the constants of a graph's step, which is written as `factor * (x - share * o)`, or with `x`
    /// and `o` in each other's places. `None` if the graph has no such step.
    pub fn apply(&self, graph: &Graph) -> Option<Graph> {
        let mut graph = graph.clone();
        let (part, next) = (find(&graph, "scheduler/Mul.next.part")?, find(&graph, "scheduler/Mul.next")?);
        let (share, factor) = (constant(&graph, part)?, constant(&graph, next)?);
        let of_sample = part.inputs.iter().flatten().any(|id| graph.value(*id).name == "sample");
        let (small, whole) = if of_sample { (self.sample, self.output) } else { (self.output, self.sample) };
        scale(&mut graph, share, small / whole);
        scale(&mut graph, factor, whole);
        Some(graph)
    }
}

fn find<'a>(graph: &'a Graph, name: &str) -> Option<&'a Node> {
    graph.nodes.iter().find(|node| node.name == name)
}

/// The constant factor of a product.
fn constant(graph: &Graph, node: &Node) -> Option<ValueId> {
    node.inputs.iter().flatten().copied().find(|id| graph.value(*id).data.is_some())
}

#[expect(clippy::cast_possible_truncation, reason = "constants of the graph are `float32`")]
fn scale(graph: &mut Graph, id: ValueId, by: f64) {
    let value = graph.value_mut(id);
    let numbers = value.data.as_ref().map(Data::to_f32s).unwrap_or_default();
    let scaled: Vec<f32> = numbers.iter().map(|v| (f64::from(*v) * by) as f32).collect();
    value.data = Some(Data::f32s(&scaled));
}

/// By how much the values of the scheduler's tensors can differ in `new` from those in `old`, a graph of the same nodes
/// with other constants, by the tensors' names. `ranges` says what values they take in `old`.
pub fn widen(old: &Graph, new: &Graph, ranges: &dyn Fn(&str) -> Option<Range>) -> BTreeMap<String, f32> {
    let mut moved: BTreeMap<ValueId, f64> = BTreeMap::new();
    for (index, node) in old.nodes.iter().enumerate().filter(|(_, node)| node.module() == "scheduler") {
        let [Some(a), Some(b)] = node.inputs[..] else { continue };
        let number = |graph: &Graph, id: ValueId| {
            let data = graph.value(id).data.as_ref()?;
            Some(f64::from(data.to_f32s().first().copied().unwrap_or_default()))
        };
        let by = |id: ValueId| moved.get(&id).copied().unwrap_or_default();
        let twin = |id: ValueId| {
            let place = node.inputs.iter().position(|input| *input == Some(id))?;
            new.nodes.get(index)?.inputs.get(place).copied().flatten()
        };
        let magnitude = |id: ValueId| {
            let range = ranges(&old.value(id).name).unwrap_or(Range { min: 0.0, max: 0.0 });
            f64::from(range.max.abs().max(range.min.abs()))
        };
        let product = |factor: ValueId, of: ValueId| {
            let (before, after) = (number(old, factor)?, number(new, twin(factor)?)?);
            Some(after.abs() * by(of) + (after - before).abs() * magnitude(of))
        };
        let shift = match node.op.name {
            "Mul" if old.value(b).data.is_some() => product(b, a),
            "Mul" if old.value(a).data.is_some() => product(a, b),
            _ => Some(by(a) + by(b)),
        };
        moved.extend(node.outputs.iter().map(|id| (*id, shift.unwrap_or_default())));
    }
    #[expect(clippy::cast_possible_truncation, reason = "a bound")]
    let named = |(id, shift): (ValueId, f64)| (old.value(id).name.clone(), shift as f32);
    moved.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use edge_ir::{Builder, DType};

    use super::*;

    #[test]
    fn factors_that_are_there_are_found() {
        let mut sums = Sums::default();
        for k in 0..50_u8 {
            let (u, v) = (f64::from(k) - 20.0, f64::from(k % 7) - 3.0);
            sums.add(u, v, 0.97 * u + 1.04 * v);
        }
        let fit = sums.fit();
        assert!((fit.sample - 0.97).abs() < 1e-12 && (fit.output - 1.04).abs() < 1e-12, "{fit:?}");
        assert!(Sums::default().fit().is_one());
        let mut alike = Sums::default();
        (0..9_u8).for_each(|k| alike.add(f64::from(k), 2.0 * f64::from(k), 1.0));
        assert!(alike.fit().is_one());
    }

    /// `factor * (whole - share * part)` of the inputs `sample` and `output`.
    fn graph(whole: &str, part: &str) -> Graph {
        let mut b = Builder::new("g");
        let mut ids = ["sample", "output"].map(|name| b.input(name, DType::Float32, &[1, 1]));
        if whole != "sample" {
            ids.reverse();
        }
        assert_eq!(part, if whole == "sample" { "output" } else { "sample" });
        let (share, factor) = (b.floats("share", &[1], &[0.5]), b.floats("factor", &[1], &[10.0]));
        let small = b.node("Mul", "scheduler/Mul.next.part", &[ids[1], share], &[]).expect("a node");
        let sum = b.node("Sub", "scheduler/Sub.next", &[ids[0], small], &[]).expect("a node");
        let next = b.node("Mul", "scheduler/Mul.next", &[sum, factor], &[]).expect("a node");
        b.output("next", next);
        Graph::clone(&b.finish().expect("a graph"))
    }

    #[test]
    fn constants_become_what_they_stand_for() {
        let fit = Fit { sample: 1.1, output: 0.9 };
        let numbers = |graph: &Graph| -> Vec<f32> { graph.initializers().map(|(_, _, d)| d.to_f32s()[0]).collect() };
        // 10 (x - 0.5 o) becomes 11 x - 4.5 o.
        let found = numbers(&fit.apply(&graph("sample", "output")).expect("a step"));
        assert!((found[1] - 11.0).abs() < 1e-5 && (found[0] * found[1] - 4.5).abs() < 1e-5, "{found:?}");
        // 10 (o - 0.5 x) becomes 9 o - 5.5 x.
        let found = numbers(&fit.apply(&graph("output", "sample")).expect("a step"));
        assert!((found[1] - 9.0).abs() < 1e-5 && (found[0] * found[1] - 5.5).abs() < 1e-5, "{found:?}");
        assert!(fit.apply(&Graph::new("empty")).is_none());
    }

    #[test]
    fn ranges_hold_what_the_factors_make() {
        let old = graph("sample", "output");
        let new = Fit { sample: 1.1, output: 0.9 }.apply(&old).expect("a step");
        let shifts = widen(&old, &new, &|name| match name {
            "sample" | "output" => Some(Range { min: -4.0, max: 3.0 }),
            _ => Some(Range { min: -2.0, max: 2.0 }),
        });
        let mut shifts: Vec<f32> = shifts.into_values().collect();
        shifts.sort_by(f32::total_cmp);
        // The share falls from 0.5 to 4.5 / 11, times 4; then 11 times that, and 2 times the factor's change.
        let part = (0.5 - 4.5 / 11.0) * 4.0;
        for (found, expect) in shifts.iter().zip([part, part, 11.0 * part + 2.0]) {
            assert!((found - expect).abs() < 1e-4, "{shifts:?}");
        }
        assert_eq!(shifts.len(), 3);
    }
}
