//! Matrix products, summed in `float64`.

use edge_ir::{DType, Node, TensorType};

use super::Constant;

/// `alpha a b + beta c`, `a` and `b` transposed where the attributes say so.
#[expect(clippy::cast_possible_truncation, reason = "the result is rounded to the type of the tensor")]
pub(super) fn gemm(node: &Node, inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let ([a, b, rest @ ..], [ty]) = (inputs, outputs) else { return None };
    let [m, n] = ty.shape[..] else { return None };
    if ty.dtype != DType::Float32 {
        return None;
    }
    let k = a.ty.shape.iter().product::<usize>() / m;
    let step = |transposed, rows: usize, columns: usize| if transposed { (1, rows) } else { (columns, 1) };
    let product = product(
        (&a.data.to_f32s(), step(node.int("transA", 0) != 0, m, k)),
        (&b.data.to_f32s(), step(node.int("transB", 0) != 0, k, n)),
        [m, k, n],
    );
    let (alpha, beta) = (f64::from(node.float("alpha", 1.0)), f64::from(node.float("beta", 1.0)));
    let bias = match rest {
        [] => vec![0.0; m * n],
        [c, ..] => {
            let zeros = Constant::f32s([m, n], &vec![0.0; m * n]);
            let sum = super::elementwise::binary(&[c.clone(), zeros], outputs, |a, b| a + b, |_, _| None)?;
            sum.first()?.data.to_f32s()
        }
    };
    let numbers: Vec<f32> = product.iter().zip(bias).map(|(p, c)| (alpha * p + beta * f64::from(c)) as f32).collect();
    Some(vec![Constant::f32s([m, n], &numbers)])
}

/// `[..., m, k]` by `[k, n]`, or by as many matrices as there are on the left.
#[expect(clippy::cast_possible_truncation, reason = "the result is rounded to the type of the tensor")]
pub(super) fn matmul(inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let ([a, b], [ty]) = (inputs, outputs) else { return None };
    let ([batch_a @ .., m, k], [batch_b @ .., _, n]) = (&a.ty.shape[..], &b.ty.shape[..]) else { return None };
    let (count, shared) = (batch_a.iter().product::<usize>(), batch_b.iter().product::<usize>() == 1);
    if ty.dtype != DType::Float32 || !(shared || batch_a == batch_b) {
        return None;
    }
    let (x, y) = (a.data.to_f32s(), b.data.to_f32s());
    let mut numbers = Vec::with_capacity(count * m * n);
    for index in 0..count {
        let right = if shared { 0 } else { index * k * n };
        let left = (x.get(index * m * k..)?, (*k, 1));
        numbers.extend(product(left, (y.get(right..)?, (*n, 1)), [*m, *k, *n]).iter().map(|v| *v as f32));
    }
    Some(vec![Constant::f32s(ty.shape.clone(), &numbers)])
}

/// A matrix's numbers, and how far apart its rows and columns are.
type Strided<'a> = (&'a [f32], (usize, usize));

fn product((a, (ar, ac)): Strided<'_>, (b, (br, bc)): Strided<'_>, [m, k, n]: [usize; 3]) -> Vec<f64> {
    let sum = |i: usize, j: usize| (0..k).map(|l| f64::from(a[i * ar + l * ac]) * f64::from(b[l * br + j * bc])).sum();
    (0..m * n).map(|at| sum(at / n, at % n)).collect()
}
