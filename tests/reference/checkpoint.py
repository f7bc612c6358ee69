"""Builds the models of a variant and writes them as a diffusers checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from variants import Variant
from weights import (
    SD_VAE_SCALE,
    carry_latent,
    draw,
    fill,
    fit_unet_head,
    scale_output,
    smooth_latents,
)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
OLD_ATTENTION = {
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "proj_attn",
}


def build(spec: Variant, seed: int, vocab_size: int):
    """Returns the models by folder name, and the scheduler."""
    from diffusers import AutoencoderKL, AutoencoderTiny, LCMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    blocks = len(spec.channels)
    down = ["CrossAttnDownBlock2D"] * blocks
    up = ["CrossAttnUpBlock2D"] * blocks
    if not spec.last_block_attention:
        down[-1], up[0] = "DownBlock2D", "UpBlock2D"
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=spec.sample,
            in_channels=4,
            out_channels=4,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            mid_block_type="UNetMidBlock2DCrossAttn" if spec.mid else None,
            block_out_channels=spec.channels,
            layers_per_block=spec.layers,
            attention_head_dim=list(spec.heads) if isinstance(spec.heads, tuple) else spec.heads,
            cross_attention_dim=spec.text_hidden,
            norm_num_groups=spec.unet_groups,
            time_cond_proj_dim=spec.time_cond,
            use_linear_projection=spec.linear_projection,
        )
        vae = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            layers_per_block=2,
            act_fn="silu",
            sample_size=spec.sample * 8,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=spec.vae_channels,
            norm_num_groups=spec.vae_groups,
            scaling_factor=SD_VAE_SCALE,
        )
        taesd = AutoencoderTiny(
            encoder_block_out_channels=(spec.taesd,) * 4,
            decoder_block_out_channels=(spec.taesd,) * 4,
        )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=spec.text_hidden,
            intermediate_size=4 * spec.text_hidden,
            num_hidden_layers=spec.text_layers,
            num_attention_heads=spec.text_heads,
            max_position_embeddings=77,
            hidden_act=spec.text_act,
            projection_dim=spec.text_hidden,
            bos_token_id=vocab_size - 2,
            eos_token_id=vocab_size - 1,
            pad_token_id=1,
        )
    )
    scheduler = LCMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        original_inference_steps=50,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=spec.prediction,
    )
    models = {"unet": unet, "vae": vae, "taesd": taesd, "text_encoder": text}
    for kind, model in models.items():
        if next(model.parameters()).is_meta:
            model.to_empty(device="cpu")
        fill(model.eval().requires_grad_(False), kind, seed)
    carry_latent(unet)
    return models, scheduler


@torch.no_grad()
def finish(models, scheduler, spec: Variant, ids: torch.Tensor, seed: int) -> None:
    """Sets the data-dependent last layers, then rounds to the stored type.

    The models stay float32, so that goldens are float32 arithmetic on the stored weights.
    """
    context = models["text_encoder"](ids).last_hidden_state
    fit_unet_head(models["unet"], scheduler, spec, context, seed)
    noise = draw(seed, "probe/noise", (1, 4, spec.sample, spec.sample))
    probe = smooth_latents(seed, "probe", 1, spec.sample) + 0.3 * noise
    vae, taesd = models["vae"], models["taesd"]
    scale_output(vae.decoder.conv_out, lambda: vae.decode(probe / SD_VAE_SCALE).sample, 0.35, 0.0)
    scale_output(taesd.decoder.layers[-1], lambda: taesd.decode(probe).sample, 0.35, 0.0)
    for model in models.values():
        model.to(DTYPES[spec.dtype]).float()


def save_checkpoint(models, scheduler, spec: Variant, out: Path) -> None:
    """Writes the diffusers folder, with key names as the variant asks."""
    import diffusers

    for kind, model in models.items():
        sharded = spec.shard and kind in ("unet", "text_encoder")
        extra = {"max_shard_size": spec.shard} if sharded else {}
        model.to(DTYPES[spec.dtype]).save_pretrained(out / kind, safe_serialization=True, **extra)
        model.float()
    rename_text_keys(out / "text_encoder", spec)
    if spec.old_vae_keys:
        rename_vae_keys(out / "vae")
    scheduler.save_pretrained(out / "scheduler")
    pipeline = "LatentConsistencyModelPipeline" if spec.time_cond else "StableDiffusionPipeline"
    index = {
        "_class_name": pipeline,
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "LCMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(out / "model_index.json", index)


def rename_text_keys(folder: Path, spec: Variant) -> None:
    """Published checkpoints name CLIP weights `text_model.*`; transformers 5 saves no prefix."""
    prefix = "" if spec.bare_text_keys else "text_model."

    def name(key: str) -> str:
        return prefix + key.removeprefix("text_model.")

    for path in sorted(folder.glob("*.safetensors")):
        state = {name(key): value for key, value in load_file(path).items()}
        if spec.position_ids:
            state[name("embeddings.position_ids")] = torch.arange(77)[None]
        save_file(state, path, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.exists():
        doc = json.loads(index.read_text())
        doc["weight_map"] = {name(key): file for key, file in doc["weight_map"].items()}
        write_json(index, doc)
    if not spec.bare_text_keys:  # the form published with SD 1.x
        config = json.loads((folder / "config.json").read_text())
        config["architectures"], config["model_type"] = ["CLIPTextModel"], "clip_text_model"
        config["torch_dtype"] = config.pop("dtype", "float32")
        write_json(folder / "config.json", config)


def rename_vae_keys(folder: Path) -> None:
    """The attention names that diffusers used before 0.12, and still reads."""
    path = folder / "diffusion_pytorch_model.safetensors"
    state = {}
    for key, value in load_file(path).items():
        head, found, tail = key.partition(".attentions.0.")
        if found:
            layer, _, parameter = tail.rpartition(".")
            tail = f"{OLD_ATTENTION.get(layer, layer)}.{parameter}"
        state[head + found + tail] = value
    save_file(state, path, metadata={"format": "pt"})


def move_into_hub_cache(out: Path, name: str) -> Path:
    """Lays a checkpoint out as the Hugging Face cache does; returns the snapshot's folder."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    commit = hashlib.sha1("".join(hashes[path] for path in files).encode()).hexdigest()
    root = out / f"models--edgetool--{name}"
    snapshot = root / "snapshots" / commit
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    for path in files:
        blob = root / "blobs" / hashes[path]
        link = snapshot / path.relative_to(out)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.replace(blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    for folder in [path for path in out.iterdir() if path.is_dir() and path != root]:
        shutil.rmtree(folder)
    return snapshot


def write_json(path: Path, value: object) -> None:
    """Writes JSON as diffusers does: sorted, two spaces."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
