"""The shapes of checkpoint that make_reference.py can make.

A variant is the whole description: two runs with the same variant and seed give the same bytes.
"""

from __future__ import annotations

import dataclasses

FULL_MERGES = 49152 - 256 - 2
"""Merges of the published CLIP tokenizer."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One checkpoint: its architecture, how its files are laid out, and which goldens it gets."""

    note: str
    # UNet
    channels: tuple[int, ...] = (16, 32, 48)
    last_block_attention: bool = True  # BK-SDM-Tiny drops the attention-free fourth block
    mid: bool = False
    layers: int = 1
    heads: int | tuple[int, ...] = 4  # diffusers calls this attention_head_dim
    time_cond: int | None = 256
    linear_projection: bool = False
    prediction: str = "epsilon"
    sample: int = 16
    unet_groups: int = 8
    # text encoder and tokenizer
    text_hidden: int = 64
    text_layers: int = 3
    text_heads: int = 4
    text_act: str = "quick_gelu"
    merges: int = 510
    pad: str = "<|endoftext|>"
    # decoders
    vae_channels: tuple[int, ...] = (8, 16, 16, 16)
    vae_groups: int = 4
    taesd: int = 16
    # files
    dtype: str = "float32"  # float32, float16 or bfloat16
    shard: str | None = None
    bare_text_keys: bool = False  # transformers 5 writes no `text_model.` prefix
    position_ids: bool = False  # older text encoders carry an int64 buffer
    old_vae_keys: bool = False  # query/key/value/proj_attn, as diffusers wrote before 0.12
    hub_cache: bool = False  # models--x--y/snapshots/<hash>/ with links into blobs/
    single_file: bool = False
    # goldens
    steps: tuple[int, ...] = (1, 2, 4)  # pipeline runs
    unet_steps: int = 8  # noise predictions are stored for the timesteps of this schedule
    fit_batches: int = 1
    fit_batch_size: int = 32


FOUR_BLOCKS = dict(channels=(16, 24, 32, 32), last_block_attention=False, time_cond=None)
FULL = Variant(
    "BK-SDM-Tiny at full size: 323 M UNet with the 256-wide guidance embedding, SD 1.x VAE, "
    "CLIP ViT-L text encoder",
    channels=(320, 640, 1280),
    heads=8,
    unet_groups=32,
    sample=64,
    text_hidden=768,
    text_layers=12,
    text_heads=12,
    merges=FULL_MERGES,
    vae_channels=(128, 256, 512, 512),
    vae_groups=32,
    taesd=64,
    steps=(1, 2),
    unet_steps=2,
    fit_batches=4,
    fit_batch_size=1,
)

VARIANTS: dict[str, Variant] = {
    "tiny": Variant("BK-SDM-Tiny block structure, guidance embedding, fp32"),
    "tiny-fp16": Variant("as tiny, weights stored in fp16", dtype="float16"),
    "tiny-bf16": Variant("as tiny, weights stored in bf16", dtype="bfloat16"),
    "tiny-nocond": Variant(
        "as tiny, no guidance embedding; text keys without prefix",
        time_cond=None,
        bare_text_keys=True,
    ),
    "tiny-sd15": Variant(
        "SD 1.5 block structure (4 blocks, mid block, 2 layers) plus one original-layout file; fp16",
        **FOUR_BLOCKS,
        mid=True,
        layers=2,
        single_file=True,
        text_hidden=32,
        dtype="float16",
    ),
    "tiny-bksmall": Variant("BK-SDM-Small: 4 blocks, 1 layer, no mid block", **FOUR_BLOCKS),
    "tiny-bkbase": Variant(
        "BK-SDM-Base: 4 blocks, 1 layer, mid block kept", **FOUR_BLOCKS, mid=True
    ),
    "tiny-linear-proj": Variant(
        "SD 2 style: linear projections, head list, gelu text encoder, '!' padding, v-prediction",
        **FOUR_BLOCKS,
        mid=True,
        linear_projection=True,
        heads=(2, 3, 4, 4),
        prediction="v_prediction",
        text_act="gelu",
        pad="!",
    ),
    "tiny-sharded": Variant(
        "as tiny, with unet and text_encoder in shards and an index.json", shard="500KB"
    ),
    "tiny-old-keys": Variant(
        "as tiny, VAE attention named query/key/value/proj_attn, text encoder with position_ids",
        old_vae_keys=True,
        position_ids=True,
    ),
    "tiny-hub-cache": Variant(
        "as tiny, laid out as the Hugging Face cache does it", hub_cache=True
    ),
    "small": Variant(
        "as tiny with wider blocks (too large to keep in a repository)",
        channels=(32, 64, 96),
        heads=8,
        unet_groups=32,
        vae_channels=(16, 32, 32, 32),
        vae_groups=8,
    ),
    "full": FULL,
    "full-fp16": dataclasses.replace(FULL, note=FULL.note + ", fp16 weights", dtype="float16"),
}

TINY = [name for name in VARIANTS if name.startswith("tiny")]
