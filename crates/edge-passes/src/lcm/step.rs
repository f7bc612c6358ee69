//! The scheduler's step as operators.
//!
//! A weighted sum of the sample and the output is written as one factor times a sum in which the larger of the two has
//! weight 1: `14.65 * (x - 0.998 * o)` rather than `14.65 * x - 14.61 * o`. The difference is small and gets a range of
//! its own, so that an 8- or 16-bit type is not spent on two large numbers that cancel.

use edge_ir::{Builder, ValueId};
use edge_lcm::Affine;

use super::error::FoldError;

/// The values that a step works on.
#[derive(Clone, Copy)]
pub(super) struct Inputs {
    /// The sample.
    pub(super) sample: ValueId,
    /// The network's output, after guidance.
    pub(super) output: ValueId,
    /// Fresh noise, if a step takes it.
    pub(super) noise: Option<ValueId>,
    /// Which step it is, if the graph does for several.
    pub(super) index: Option<ValueId>,
}

/// Adds the nodes of a step and returns the next sample. Several steps give tables, from which `index` chooses.
pub(super) fn add(b: &mut Builder, steps: &[Affine], inputs: Inputs) -> Result<ValueId, FoldError> {
    let mut nodes = Nodes { b, index: inputs.index };
    let clips = steps.iter().map(|s| s.clip).collect::<Option<Vec<_>>>();
    let clean = match clips {
        Some(clips) => {
            let terms: Vec<_> = clips.iter().map(|c| [c.sample, c.output]).collect();
            let clean = nodes.sum("clean", &terms, [inputs.sample, inputs.output])?;
            nodes.clip(clean, clips[0].limit)?
        }
        None => inputs.output,
    };
    let terms: Vec<_> = steps.iter().map(|s| [s.sample, s.clean]).collect();
    let next = nodes.sum("next", &terms, [inputs.sample, clean])?;
    let Some(noise) = inputs.noise else { return Ok(next) };
    let shares: Vec<f64> = steps.iter().map(|s| s.noise).collect();
    let noise = nodes.scale("noise", noise, &shares)?;
    nodes.node("Add", "Add.noise", &[next, noise])
}

/// Nodes of the module `scheduler`.
struct Nodes<'a> {
    b: &'a mut Builder,
    index: Option<ValueId>,
}

impl Nodes<'_> {
    /// `terms[0] * values[0] + terms[1] * values[1]`, without a term that is 0 in all steps.
    fn sum(&mut self, what: &str, terms: &[[f64; 2]], values: [ValueId; 2]) -> Result<ValueId, FoldError> {
        let column = |i: usize| terms.iter().map(|t| t[i]).collect::<Vec<f64>>();
        let is_zero = |i: usize| terms.iter().all(|t| t[i] == 0.0);
        if let Some(only) = (0..2).find(|i| is_zero(1 - *i)) {
            return self.scale(what, values[only], &column(only));
        }
        // The term that stays as it is: the one to which the other is smaller, in the worst step.
        let ratios = |i: usize| terms.iter().map(|t| t[1 - i] / t[i]).collect::<Vec<f64>>();
        let worst = |i: usize| ratios(i).iter().fold(0.0, |worst: f64, r| worst.max(r.abs()));
        let whole = usize::from(worst(0) > worst(1));
        let ratios = ratios(whole);
        let negative = ratios.iter().all(|r| *r < 0.0);
        let shares: Vec<f64> = ratios.iter().map(|r| if negative { -r } else { *r }).collect();
        let part = self.scale(&format!("{what}.part"), values[1 - whole], &shares)?;
        let op = if negative { "Sub" } else { "Add" };
        let sum = self.node(op, &format!("{op}.{what}"), &[values[whole], part])?;
        self.scale(what, sum, &column(whole))
    }

    /// `value * factor`.
    fn scale(&mut self, what: &str, value: ValueId, factors: &[f64]) -> Result<ValueId, FoldError> {
        if factors.iter().all(|f| to_f32(*f).to_bits() == 1.0_f32.to_bits()) {
            return Ok(value);
        }
        let factor = self.factor(what, factors)?;
        self.node("Mul", &format!("Mul.{what}"), &[value, factor])
    }

    /// A constant, or the row of a table.
    fn factor(&mut self, what: &str, factors: &[f64]) -> Result<ValueId, FoldError> {
        let numbers: Vec<f32> = factors.iter().map(|f| to_f32(*f)).collect();
        let name = format!("scheduler_{}_factor", what.replace('.', "_"));
        let rank = vec![1; 3];
        let Some(index) = self.index else { return Ok(self.b.floats(&name, &[1], &numbers)) };
        let table = self.b.floats(&name, &[&[numbers.len()], rank.as_slice()].concat(), &numbers);
        let axis = [("axis", edge_ir::Attribute::Int(0))];
        Ok(self.b.node("Gather", &format!("scheduler/Gather.{what}"), &[table, index], &axis)?)
    }

    fn clip(&mut self, value: ValueId, limit: f64) -> Result<ValueId, FoldError> {
        let low = self.b.floats("scheduler_clip_low", &[], &[to_f32(-limit)]);
        let high = self.b.floats("scheduler_clip_high", &[], &[to_f32(limit)]);
        self.node("Clip", "Clip", &[value, low, high])
    }

    fn node(&mut self, op: &str, step: &str, inputs: &[ValueId]) -> Result<ValueId, FoldError> {
        Ok(self.b.node(op, &format!("scheduler/{step}"), inputs, &[])?)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "constants of the graph are `float32`")]
fn to_f32(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use edge_ir::{DType, TensorType};
    use edge_lcm::{PredictionType, Schedule, SchedulerConfig, StepRequest};

    use super::super::known::Known;
    use super::*;
    use crate::eval::Constant;

    /// What the nodes of these steps give for one sample, output and noise, at step `index` of them.
    fn run(steps: &[Affine], index: Option<i64>, numbers: [f32; 3]) -> f32 {
        let mut b = Builder::new("step");
        let mut input = |name: &str, value| (b.input(name, DType::Float32, &[1, 1, 1, 1]), value);
        let [x, o, z] = [input("x", numbers[0]), input("o", numbers[1]), input("z", numbers[2])];
        let step = index.map(|_| b.input("step", DType::Int64, &[1]));
        let noise = steps.iter().any(Affine::takes_noise).then_some(z.0);
        let next = add(&mut b, steps, Inputs { sample: x.0, output: o.0, noise, index: step }).expect("a step");
        b.output("next", next);
        let graph = b.finish().expect("a graph");
        let constant = |value| Constant::f32s([1, 1, 1, 1], &[value]);
        let mut known = BTreeMap::from([x, o, z].map(|(id, value)| (id, constant(value))));
        if let (Some(id), Some(index)) = (step, index) {
            let ty = TensorType::new(DType::Int64, [1]);
            known.insert(id, Constant { ty, data: edge_ir::Data::i64s(&[index]) });
        }
        // In a step's own graph no term of the sum is above its values: nothing large is taken from something large. A
        // table has one form for all steps.
        for (_, value, data) in graph.initializers().filter(|(_, v, _)| index.is_none() && v.name.contains("part")) {
            assert!(data.to_f32s()[0].abs() <= 1.0, "{}: {:?}", value.name, data.to_f32s());
        }
        Known::new(&graph, known).get(graph.outputs[0]).expect("a number").data.to_f32s()[0]
    }

    #[test]
    fn the_nodes_are_the_step() {
        for prediction_type in [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction] {
            let config = SchedulerConfig { prediction_type, ..SchedulerConfig::default() };
            let steps = Schedule::new(&config, &StepRequest::steps(8)).expect("a schedule").affine().expect("affine");
            for (index, step) in (0..).zip(&steps) {
                for numbers in [[1.5, 1.25, -0.5], [-2.0, -2.25, 1.0], [0.25, -1.0, 0.75]] {
                    let expected = step.next(&numbers[..1], &numbers[1..2], &numbers[2..])[0];
                    let close = |found: f32| (found - expected).abs() <= 1e-6 * expected.abs().max(14.6);
                    let [alone, table] =
                        [run(std::slice::from_ref(step), None, numbers), run(&steps, Some(index), numbers)];
                    assert!(
                        close(alone) && close(table),
                        "{prediction_type:?} {index}: {alone}, {table} for {expected}"
                    );
                }
            }
        }
    }
}
