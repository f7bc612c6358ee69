//! Operators that move elements. Where a view can say what they do, no element is read.

use edge_ir::{DType, Data, Node, TensorType};

use super::{Constant, axis};

pub(super) fn reshape(inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let ([x, _], [ty]) = (inputs, outputs) else { return None };
    Some(vec![Constant { ty: ty.clone(), data: x.data.clone() }])
}

/// Two dimensions that change places with ones around them are a view; other orders are computed.
pub(super) fn transpose(node: &Node, inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let ([x], [ty]) = (inputs, outputs) else { return None };
    let perm: Vec<usize> = node.ints("perm")?.iter().filter_map(|p| usize::try_from(*p).ok()).collect();
    let size = x.ty.dtype.bytes(1);
    let moved: Vec<usize> = perm.iter().copied().filter(|p| x.ty.shape[*p] != 1).collect();
    let data = match moved[..] {
        [a, b] if a > b => x.data.transpose(x.ty.shape[b], x.ty.shape[a], size)?,
        _ if moved.is_sorted() => x.data.clone(),
        _ => Data::owned(permuted(&x.data.bytes(), &x.ty.shape, &perm, usize::try_from(size).ok()?)),
    };
    Some(vec![Constant { ty: ty.clone(), data }])
}

pub(super) fn split(node: &Node, inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let x = inputs.first()?;
    let axis = axis(node, 0, x.ty.shape.len())?;
    let mut start = 0;
    let part = |ty: &TensorType| {
        let range = start..start + ty.shape[axis];
        start = range.end;
        Some(Constant { ty: ty.clone(), data: x.data.slice(&x.ty.shape, axis, range, x.ty.dtype.bytes(1))? })
    };
    outputs.iter().map(part).collect()
}

pub(super) fn slice(inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let ([x, starts, ends, axes], [ty]) = (inputs, outputs) else { return None };
    let (mut shape, mut data) = (x.ty.shape.clone(), x.data.clone());
    let bounds = starts.data.to_i64s().into_iter().zip(ends.data.to_i64s());
    for ((start, end), axis) in bounds.zip(axes.data.to_i64s()) {
        let rank = i64::try_from(shape.len()).ok()?;
        let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        data = data.slice(&shape, axis, range.clone(), x.ty.dtype.bytes(1))?;
        shape[axis] = range.len();
    }
    Some(vec![Constant { ty: ty.clone(), data }])
}

pub(super) fn concat(node: &Node, inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let ty = outputs.first()?;
    let axis = axis(node, 0, ty.shape.len())?;
    let outer: usize = ty.shape[..axis].iter().product();
    let parts: Vec<_> = inputs.iter().map(|x| x.data.bytes()).collect();
    let mut bytes = Vec::with_capacity(usize::try_from(ty.bytes()).ok()?);
    for index in 0..outer {
        for part in &parts {
            let len = part.len() / outer;
            bytes.extend_from_slice(&part[index * len..(index + 1) * len]);
        }
    }
    Some(vec![Constant { ty: ty.clone(), data: Data::owned(bytes) }])
}

/// Of the table, only the rows that are asked for are read.
pub(super) fn gather(node: &Node, inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let ([table, indices], [ty]) = (inputs, outputs) else { return None };
    let shape = &table.ty.shape;
    let axis = axis(node, 0, shape.len())?;
    let extent = i64::try_from(shape[axis]).ok()?;
    let wanted = indices.data.to_i64s();
    if indices.ty.dtype != DType::Int64 {
        return None;
    }
    let row = |index: &i64| {
        let at = usize::try_from(if *index < 0 { index + extent } else { *index }).ok()?;
        Some(table.data.slice(shape, axis, at..at + 1, table.ty.dtype.bytes(1))?.bytes().into_owned())
    };
    let rows = wanted.iter().map(row).collect::<Option<Vec<_>>>()?;
    let outer: usize = shape[..axis].iter().product();
    let bytes = (0..outer).flat_map(|o| rows.iter().flat_map(move |r| &r[o * (r.len() / outer)..][..r.len() / outer]));
    Some(vec![Constant { ty: ty.clone(), data: Data::owned(bytes.copied().collect::<Vec<_>>()) }])
}

fn permuted(bytes: &[u8], shape: &[usize], perm: &[usize], size: usize) -> Vec<u8> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(bytes.len());
    for mut at in 0..count {
        let mut index = 0;
        for p in perm.iter().rev() {
            index += at % shape[*p] * strides[*p];
            at /= shape[*p];
        }
        out.extend_from_slice(&bytes[index * size..(index + 1) * size]);
    }
    out
}
