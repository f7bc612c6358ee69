//! GELU in other forms: the operator of opset 20, which is exact, and two approximations (Hendrycks and Gimpel,
//! <https://arxiv.org/abs/1606.08415>, section 2).

use edge_ir::{Builder, Error, Graph, Rewritten, ValueId, View, pair, rewrite};

use super::tool::{self, is};
use crate::{Approximation, Pass};

/// `sqrt(2 / pi)` and the factor of the cube, in the approximation by `tanh`.
const TANH: (f32, f32) = (0.797_884_6, 0.044_715);
/// The factor in the approximation by the logistic function.
const SIGMOID: f32 = 1.702;

/// The form to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GeluForm {
    /// The operator.
    Native,
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    Tanh,
    /// `x sigmoid(1.702 x)`.
    Sigmoid,
}

/// The pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct GeluAs(pub(super) GeluForm);

impl Pass for GeluAs {
    fn name(&self) -> &'static str {
        match self.0 {
            GeluForm::Native => "gelu-native",
            GeluForm::Tanh => "gelu-as-tanh",
            GeluForm::Sigmoid => "gelu-as-sigmoid",
        }
    }

    fn about(&self) -> &'static str {
        match self.0 {
            GeluForm::Native => "GELU is one Gelu",
            GeluForm::Tanh => "GELU is approximated with Tanh",
            GeluForm::Sigmoid => "GELU is approximated with Sigmoid",
        }
    }

    fn approximation(&self) -> Option<Approximation> {
        match self.0 {
            GeluForm::Native => None,
            GeluForm::Tanh => Some(Approximation { what: "GELU by tanh", bound: 4.8e-4 }),
            GeluForm::Sigmoid => Some(Approximation { what: "GELU by the logistic function", bound: 2.1e-2 }),
        }
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let Some(x) = exact(view, index) else { return Ok(None) };
            let name = view.graph.nodes[index].module().to_owned();
            let result = match self.0 {
                GeluForm::Native => b.node("Gelu", &name, &[x], &[])?,
                GeluForm::Tanh => by_tanh(b, &name, x)?,
                GeluForm::Sigmoid => by_sigmoid(b, &name, x)?,
            };
            Ok(Some(vec![result]))
        })
    }
}

/// The argument of `0.5 * (x * (erf(x / sqrt 2) + 1))`.
fn exact(view: &View<'_>, index: usize) -> Option<ValueId> {
    let (product, _) = view.with_number(view.node(index, "Mul")?).filter(|(_, n)| is(*n, 0.5))?;
    let (x, sum) = pair(view.only_maker(product, "Mul")?.1)?;
    let (erf, _) = view.with_number(view.only_maker(sum, "Add")?.1).filter(|(_, n)| is(*n, 1.0))?;
    let scaled = (*view.only_maker(erf, "Erf")?.1.inputs.first()?)?;
    let (argument, root) = view.with_number(view.only_maker(scaled, "Div")?.1)?;
    (argument == x && is(root, std::f32::consts::SQRT_2)).then_some(x)
}

fn by_tanh(b: &mut Builder, name: &str, x: ValueId) -> Result<ValueId, Error> {
    let step = |step: &str| format!("{name}/{step}");
    let square = b.node("Mul", &step("Mul.square"), &[x, x], &[])?;
    let [cube, root, one, half] = [TANH.1, TANH.0, 1.0, 0.5].map(|n| tool::scalar(b, n));
    let bent = b.node("Mul", &step("Mul.cube"), &[square, cube], &[])?;
    let bent = b.node("Add", &step("Add.one"), &[bent, one], &[])?;
    let bent = b.node("Mul", &step("Mul.x"), &[bent, x], &[])?;
    let bent = b.node("Mul", &step("Mul.root"), &[bent, root], &[])?;
    let tanh = b.node("Tanh", &step("Tanh"), &[bent], &[])?;
    let gate = b.node("Add", &step("Add"), &[tanh, one], &[])?;
    let product = b.node("Mul", &step("Mul"), &[x, gate], &[])?;
    b.node("Mul", &step("Mul.half"), &[product, half], &[])
}

fn by_sigmoid(b: &mut Builder, name: &str, x: ValueId) -> Result<ValueId, Error> {
    let factor = tool::scalar(b, SIGMOID);
    let scaled = b.node("Mul", &format!("{name}/Mul.scale"), &[x, factor], &[])?;
    let gate = b.node("Sigmoid", &format!("{name}/Sigmoid"), &[scaled], &[])?;
    b.node("Mul", &format!("{name}/Mul"), &[x, gate], &[])
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, check, gelu};
    use super::*;

    #[test]
    fn forms() {
        // In -1..1 the approximations are closer than anywhere: their bounds are tested below.
        for (form, tolerance, operators) in [
            (GeluForm::Native, EXACT, [("Gelu", 1), ("Erf", 0)]),
            (GeluForm::Tanh, 1e-3, [("Tanh", 1), ("Erf", 0)]),
            (GeluForm::Sigmoid, 5e-2, [("Sigmoid", 1), ("Erf", 0)]),
        ] {
            let build = |b: &mut Builder| {
                let x = b.input("x", DType::Float32, &[6, 8]);
                gelu(b, "gelu", x)
            };
            check(build, GeluAs(form), tolerance, &operators);
        }
    }

    /// The functions themselves, in `float64`, on a grid that is fine beside their curvature and beyond which all are
    /// `x` or 0.
    #[test]
    fn the_bounds_hold_and_are_tight() {
        let exact = |x: f64| 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
        let (root, cube) = (f64::from(TANH.0), f64::from(TANH.1));
        let tanh = |x: f64| 0.5 * x * (1.0 + libm::tanh(root * (x + cube * x * x * x)));
        let sigmoid = |x: f64| x / (1.0 + libm::exp(-f64::from(SIGMOID) * x));
        let worst = |f: &dyn Fn(f64) -> f64| {
            let at = |i: i32| f64::from(i) / 1000.0;
            (-12_000..12_000).map(|i| (f(at(i)) - exact(at(i))).abs()).fold(0.0, f64::max)
        };
        for (form, worst) in [(GeluForm::Tanh, worst(&tanh)), (GeluForm::Sigmoid, worst(&sigmoid))] {
            let bound = f64::from(GeluAs(form).approximation().expect("an approximation").bound);
            assert!(worst <= bound && worst > 0.9 * bound, "{form:?}: {worst:e}, stated {bound:e}");
        }
    }
}
