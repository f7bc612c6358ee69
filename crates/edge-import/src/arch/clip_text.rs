//! transformers' `CLIPTextModel` (`models/clip/modeling_clip.py`): token ids to the last hidden state.
//!
//! In: `input_ids` int64 `[batch,77]`. Out: `last_hidden_state` `[batch,77,width]`, after the final norm.

use edge_ir::{Attribute, Checked, DType, Graph, ValueId};

use super::layers::Attention;
use crate::Error;
use crate::config::{Activation, ClipText};
use crate::net::{Net, Size};
use crate::source::Part;

/// What the causal mask adds to the score of a later token. Its softmax share is 0 in every floating-point type, and the
/// number itself fits into all of them: -infinity or the least `float32` would ruin the scale of a quantized score.
const MASKED: f32 = -10_000.0;

/// Builds the text encoder.
pub(crate) fn build(config: &ClipText, part: &Part, size: Size) -> Result<Checked<Graph>, Error> {
    let mut net = Net::new("text_encoder", part, size);
    let (tokens, width) = (config.max_position_embeddings, config.hidden_size);
    let ids = net.b.input("input_ids", DType::Int64, &[size.batch, tokens]);
    let table = net.weight("text_model.embeddings.token_embedding.weight", &[config.vocab_size, width])?;
    let places = net.weight("text_model.embeddings.position_embedding.weight", &[tokens, width])?;
    let x =
        net.b.node("Gather", "text_model.embeddings.token_embedding", &[table, ids], &[("axis", Attribute::Int(0))])?;
    let x = net.add("text_model.embeddings.position_embedding", x, places)?;
    let mut x = net.reshape("text_model.embeddings/Reshape", x, &[size.batch * tokens, width])?;
    let mask = causal_mask(&mut net, tokens);
    for index in 0..config.num_hidden_layers {
        x = layer(&mut net, &format!("text_model.encoder.layers.{index}"), x, config, size.batch, mask)?;
    }
    let x = net.layer_norm("text_model.final_layer_norm", x, config.layer_norm_eps)?;
    let x = net.reshape("text_model/Reshape", x, &[size.batch, tokens, width])?;
    let (graph, used) = net.finish("last_hidden_state", x)?;
    part.weights.check_all_used("text_encoder", &used, &[])?;
    Ok(graph)
}

fn layer(
    net: &mut Net<'_>,
    name: &str,
    x: ValueId,
    config: &ClipText,
    batch: usize,
    mask: ValueId,
) -> Result<ValueId, Error> {
    let spec = Attention {
        projections: ["q_proj", "k_proj", "v_proj", "out_proj"],
        bias: true,
        batch,
        heads: config.num_attention_heads,
        mask: Some(mask),
    };
    let h = net.layer_norm(&format!("{name}.layer_norm1"), x, config.layer_norm_eps)?;
    let h = net.attention(&format!("{name}.self_attn"), h, h, &spec)?;
    let x = net.add(&format!("{name}/Add.self_attn"), x, h)?;
    let h = net.layer_norm(&format!("{name}.layer_norm2"), x, config.layer_norm_eps)?;
    let h = net.linear(&format!("{name}.mlp.fc1"), h, config.intermediate_size, true)?;
    let activation = format!("{name}.mlp.activation_fn");
    let h = match config.hidden_act {
        Activation::QuickGelu => net.quick_gelu(&activation, h)?,
        Activation::Gelu => net.gelu(&activation, h)?,
    };
    let h = net.linear(&format!("{name}.mlp.fc2"), h, config.hidden_size, true)?;
    net.add(&format!("{name}/Add.mlp"), x, h)
}

fn causal_mask(net: &mut Net<'_>, tokens: usize) -> ValueId {
    let numbers: Vec<f32> = (0..tokens * tokens).map(|i| if i % tokens > i / tokens { MASKED } else { 0.0 }).collect();
    net.b.floats("causal_mask", &[1, 1, tokens, tokens], &numbers)
}
