"""The original (CompVis) single-file layout of a checkpoint.

It has no place for the guidance embedding (`time_embedding.cond_proj`), so only variants without
one travel in it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from variants import Variant

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def unet_key(key: str, layers: int) -> str:
    """The original name of a diffusers UNet tensor."""
    for ours, theirs in UNET_TOP.items():
        if key.startswith(ours + "."):
            return theirs + key[len(ours) :]
    part = key.split(".")
    per = layers + 1
    if part[0] == "mid_block":
        kind, rest = part[1], part[3:]
        slot = {"resnets": 2 * int(part[2]), "attentions": 1}[kind]
        base = f"middle_block.{slot}"
    else:
        block, kind, j, rest = int(part[1]), part[2], int(part[3]), part[4:]
        slot = 0 if kind == "resnets" else 1
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * per}.0.op.{rest[-1]}"
        if kind == "upsamplers":
            slot = 1 if block == 0 else 2
            return f"output_blocks.{block * per + layers}.{slot}.conv.{rest[-1]}"
        if part[0] == "down_blocks":
            base = f"input_blocks.{1 + block * per + j}.{slot}"
        else:
            base = f"output_blocks.{block * per + j}.{slot}"
    if kind == "resnets":
        rest[0] = RESNET[rest[0]]
    return ".".join([base, *rest])


def vae_key(key: str, blocks: int) -> str:
    """The original name of a diffusers VAE tensor."""
    part = key.split(".")
    if part[0] not in ("encoder", "decoder"):
        return key
    side, rest = part[0], part[1:]
    if rest[0] == "conv_norm_out":
        rest[0] = "norm_out"
    elif rest[0] == "mid_block" and rest[1] == "resnets":
        rest = ["mid", f"block_{int(rest[2]) + 1}", *rest[3:]]
    elif rest[0] == "mid_block":
        layer = VAE_ATTENTION[".".join(rest[3:-1])]
        rest = ["mid", "attn_1", layer, rest[-1]]
    elif rest[0] in ("down_blocks", "up_blocks"):
        way = rest[0].split("_")[0]
        i = int(rest[1]) if way == "down" else blocks - 1 - int(rest[1])
        if rest[2] == "resnets":
            rest = [way, str(i), "block", *rest[3:]]
        else:
            rest = [way, str(i), "downsample" if way == "down" else "upsample", *rest[4:]]
    rest = ["nin_shortcut" if r == "conv_shortcut" else r for r in rest]
    return ".".join([side, *rest])


def write_single_file(out: Path, spec: Variant, scheduler) -> None:
    """Writes out/single_file.safetensors from the folder's tensors."""
    unet = load_file(out / "unet/diffusion_pytorch_model.safetensors")
    vae = load_file(out / "vae/diffusion_pytorch_model.safetensors")
    text = load_file(out / "text_encoder/model.safetensors")
    state = {"model.diffusion_model." + unet_key(k, spec.layers): v for k, v in unet.items()}
    for key, value in vae.items():
        name = vae_key(key, len(spec.vae_channels))
        if ".attn_1." in name and value.dim() == 2:  # 1x1 convolutions there
            value = value[:, :, None, None]
        state["first_stage_model." + name] = value
    prefix = "cond_stage_model.transformer.text_model."
    state.update({prefix + k.removeprefix("text_model."): v for k, v in text.items()})
    state[prefix + "embeddings.position_ids"] = torch.arange(77)[None]
    state["alphas_cumprod"] = scheduler.alphas_cumprod.clone()
    state["betas"] = scheduler.betas.clone()
    state = {key: value.contiguous() for key, value in state.items()}
    save_file(state, out / "single_file.safetensors", metadata={"format": "pt"})


def check_single_file(out: Path) -> None:
    """diffusers' own converters must take the file back to exactly the folder's tensors."""
    from diffusers.loaders import single_file_utils as convert

    state = load_file(out / "single_file.safetensors")
    parts = (
        ("unet", convert.convert_ldm_unet_checkpoint),
        ("vae", convert.convert_ldm_vae_checkpoint),
    )
    for kind, converter in parts:
        config = json.loads((out / kind / "config.json").read_text())
        want = load_file(out / kind / "diffusion_pytorch_model.safetensors")
        got = converter(dict(state), config)
        require_equal(kind, want, got)
    got = convert.convert_ldm_clip_checkpoint(dict(state))
    want = load_file(out / "text_encoder/model.safetensors")
    require_equal("text_encoder", strip(want), strip(got))


def strip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Text keys without prefix and buffers."""
    named = {key.removeprefix("text_model."): value for key, value in state.items()}
    return {key: value for key, value in named.items() if "position_ids" not in key}


def require_equal(kind: str, want: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> None:
    """Both sides have the same names and the same values."""
    if want.keys() != got.keys():
        raise RuntimeError(f"{kind}: names differ: {sorted(want.keys() ^ got.keys())[:5]}")
    for key, value in want.items():
        if not torch.equal(value, got[key].reshape(value.shape)):
            raise RuntimeError(f"{kind}: {key} differs")
