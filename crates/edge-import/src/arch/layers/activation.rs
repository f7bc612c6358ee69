//! Activations, in operators that every opset from 17 on has.

use edge_ir::ValueId;

use crate::Error;
use crate::net::Net;

impl Net<'_> {
    /// `x * sigmoid(x)`.
    pub(crate) fn silu(&mut self, name: &str, x: ValueId) -> Result<ValueId, Error> {
        let gate = self.b.node("Sigmoid", &format!("{name}/Sigmoid"), &[x], &[])?;
        Ok(self.b.node("Mul", &format!("{name}/Mul"), &[x, gate], &[])?)
    }

    /// `x/2 * (1 + erf(x/sqrt 2))`, in the order of operators that runtimes recognize.
    pub(crate) fn gelu(&mut self, name: &str, x: ValueId) -> Result<ValueId, Error> {
        let (root, one) = (self.scalar(std::f32::consts::SQRT_2), self.scalar(1.0));
        let scaled = self.b.node("Div", &format!("{name}/Div"), &[x, root], &[])?;
        let erf = self.b.node("Erf", &format!("{name}/Erf"), &[scaled], &[])?;
        let sum = self.add(&format!("{name}/Add"), erf, one)?;
        let product = self.b.node("Mul", &format!("{name}/Mul"), &[x, sum], &[])?;
        self.scale(&format!("{name}/Mul.half"), product, 0.5)
    }

    /// `x * sigmoid(1.702 x)`.
    pub(crate) fn quick_gelu(&mut self, name: &str, x: ValueId) -> Result<ValueId, Error> {
        let scaled = self.scale(&format!("{name}/Mul.scale"), x, 1.702)?;
        let gate = self.b.node("Sigmoid", &format!("{name}/Sigmoid"), &[scaled], &[])?;
        Ok(self.b.node("Mul", &format!("{name}/Mul"), &[x, gate], &[])?)
    }
}
