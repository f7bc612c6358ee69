//! The time embedding, with LCM's guidance embedding added in (diffusers' `models/embeddings.py`, `Timesteps` and
//! `TimestepEmbedding`).

use edge_ir::{Attribute, DType, ValueId};

use crate::Error;
use crate::config::Unet;
use crate::net::{Net, Size, TimestepShape};

/// The longest period of the sinusoids, in training steps per 2 pi.
const MAX_PERIOD: f32 = 10_000.0;

/// `timestep` and, where the model has a guidance embedding, `timestep_cond`.
pub(super) struct Inputs {
    timestep: ValueId,
    guidance: Option<ValueId>,
}

/// Declares the inputs.
pub(super) fn inputs(net: &mut Net<'_>, config: &Unet, size: Size) -> Inputs {
    let rows = if size.timestep == TimestepShape::Shared { 1 } else { size.batch };
    let timestep = net.b.input("timestep", DType::Int64, &[rows]);
    let guidance =
        config.time_cond_proj_dim.map(|width| net.b.input("timestep_cond", DType::Float32, &[size.batch, width]));
    Inputs { timestep, guidance }
}

/// The embedding, activated as every ResNet wants it: `[1 or batch, 4 * channels]`.
pub(super) fn embedding(net: &mut Net<'_>, config: &Unet, inputs: &Inputs) -> Result<ValueId, Error> {
    let channels = config.block_out_channels[0];
    let mut x = sinusoids(net, config, inputs.timestep)?;
    if let Some(guidance) = inputs.guidance {
        let projected = net.linear("time_embedding.cond_proj", guidance, channels, false)?;
        x = net.add("time_embedding/Add", x, projected)?;
    }
    let x = net.linear("time_embedding.linear_1", x, 4 * channels, true)?;
    let x = net.silu("time_embedding.act", x)?;
    let x = net.linear("time_embedding.linear_2", x, 4 * channels, true)?;
    // Every ResNet begins by activating the embedding; once does for all.
    net.silu("time_embedding.nonlinearity", x)
}

fn sinusoids(net: &mut Net<'_>, config: &Unet, timestep: ValueId) -> Result<ValueId, Error> {
    let half = config.block_out_channels[0] / 2;
    let rows = net.b.shape(timestep)[0];
    let to = Attribute::Int(i64::from(DType::Float32.onnx()));
    let t = net.b.node("Cast", "time_proj/Cast", &[timestep], &[("to", to)])?;
    let t = net.reshape("time_proj/Reshape", t, &[rows, 1])?;
    let frequencies = net.b.floats("time_proj_frequencies", &[1, half], &frequencies(half, config.freq_shift));
    let angles = net.b.node("Mul", "time_proj/Mul", &[t, frequencies], &[])?;
    let sin = net.b.node("Sin", "time_proj/Sin", &[angles], &[])?;
    let cos = net.b.node("Cos", "time_proj/Cos", &[angles], &[])?;
    let order = if config.flip_sin_to_cos { [cos, sin] } else { [sin, cos] };
    Ok(net.b.node("Concat", "time_proj/Concat", &order, &[("axis", Attribute::Int(1))])?)
}

/// `exp(-ln(max_period) i / (half - shift))`, in diffusers' order of 32-bit operations.
#[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
fn frequencies(half: usize, shift: usize) -> Vec<f32> {
    let divisor = half as f32 - shift as f32;
    let exponent = |i: usize| -libm::logf(MAX_PERIOD) * i as f32 / divisor;
    (0..half).map(|i| libm::expf(exponent(i))).collect()
}
