"""Random weights that behave like trained ones.

PyTorch's default initialization gives a network whose signals fade to almost nothing, on which any
converter or quantizer looks perfect.  Here instead:

* each weight is normal, fan-in scaled, with a gain by its place (GAINS), so that the residual
  stream stays near unit size; each output row is scaled by a log-normal factor, since trained
  channels differ in range;
* norm gains are 1 +- 0.1, biases 0.1;
* a few fixed channels of every stream are outliers, as in trained UNets and CLIP: the rows that
  write them are 6x (VAE 3x) larger with a +-2 bias, and the norms that read them have 4x gain on
  a few channels; the text encoder's last norm pushes one channel to about -sqrt(hidden);
* the UNet's conv_out is a ridge regression from the random features to the noise (or v) in noised
  smooth latents, so that predictions have realistic size and x0 estimates stay bounded at t=999;
* the decoders' last convolutions are scaled so that images fill most of [-1, 1].

Every tensor is drawn from sha256(seed, model, name): the order of construction is irrelevant.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from variants import Variant

SD_VAE_SCALE = 0.18215

# (suffixes, gain, writes to the residual stream); the first match counts.
GAINS = [
    (("conv1",), 1.6, False),  # reads silu(norm(x))
    (("conv2",), 0.8, True),
    (("conv_shortcut",), 0.8, True),
    (("samplers.0.conv",), 1.0, True),
    (("proj_out",), 0.5, True),
    # With a larger gain the UNet's softmax is nearly one-hot, and ties between two positions amplify
    # rounding errors a hundredfold from step to step: no two correct programs would agree.
    (("attn1.to_q", "attn1.to_k", "attn2.to_q", "attn2.to_k"), 0.35, False),
    (("to_q", "to_k", "q_proj", "k_proj"), 1.4, False),
    (("to_out.0", "out_proj"), 0.6, True),
    (("ff.net.2", "fc2"), 0.9, True),
    (("fc1",), 1.2, False),
    (("encoder.conv_in", "decoder.conv_in"), 1.0, True),
    (("conv_in",), 1.0, False),
    (("time_embedding.linear_1",), 1.4, False),
    (("time_embedding.linear_2",), 1.6, False),
    (("time_embedding.cond_proj",), 0.7, False),
    (("post_quant_conv",), 0.3, False),  # reads latent / 0.18215, about 5.5 in size
]
TAESD_GAINS = [(("conv.4",), 0.5, True), (("decoder.layers.0",), 1.0, False), (("",), 1.4, False)]


def draw(seed: int, name: str, shape: tuple[int, ...] | torch.Size) -> torch.Tensor:
    """Standard normal tensor that depends only on (seed, name)."""
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))
    return torch.randn(shape, generator=generator)


def lanes(width: int) -> int:
    """How many leading channels carry the latent (see carry_latent); they are never outliers."""
    return 8 * max(1, width // 80)


def outlier_channels(seed: int, width: int, per: int = 160) -> torch.Tensor:
    """The same few channels for every stream of one width."""
    start = lanes(width) if width > 2 * lanes(width) else 0
    size = draw(seed, f"outliers/{width}", (width,))[start:].abs()
    return size.topk(max(1, width // per)).indices + start


@torch.no_grad()
def fill(model: torch.nn.Module, kind: str, seed: int) -> None:
    """Draw every parameter of `model`."""
    table = TAESD_GAINS if kind == "taesd" else GAINS
    for name, module in model.named_modules():
        tag = f"{kind}/{name}"
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            gain, writes = next(
                ((g, w) for ends, g, w in table if name.endswith(ends)), (1.0, False)
            )
            fill_linear(module, kind, seed, tag, gain, writes)
        elif isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            gain = 1 + 0.1 * draw(seed, tag + ".weight", module.weight.shape)
            if not name.endswith("conv_norm_out"):
                gain[outlier_channels(seed, len(gain))] *= 4
            module.weight.copy_(gain)
            module.bias.copy_(0.1 * draw(seed, tag + ".bias", module.bias.shape))
        elif isinstance(module, torch.nn.Embedding):
            size = 0.5 if "token" in name else 0.2
            module.weight.copy_(size * draw(seed, tag + ".weight", module.weight.shape))
    if kind == "text_encoder":
        named = model.named_modules()
        norm = next(m for n, m in named if n.endswith("final_layer_norm"))
        width = len(norm.bias)
        norm.bias[outlier_channels(seed + 1, width)[0]] = -math.sqrt(width)


def fill_linear(
    layer: torch.nn.Linear | torch.nn.Conv2d,
    kind: str,
    seed: int,
    tag: str,
    gain: float,
    writes: bool,
) -> None:
    """Draw a linear or convolution layer; `writes` says that it writes to a residual stream."""
    weight = layer.weight
    rows = weight.shape[0]
    spread = torch.exp(0.35 * draw(seed, tag + ".rows", (rows,)))
    spread /= spread.pow(2).mean().sqrt()
    shift = 0.1 * draw(seed, tag + ".bias", (rows,))
    if writes:
        big = outlier_channels(seed, rows)
        spread[big] = 3.0 if kind == "vae" else 6.0
        shift[big] = 2.0 * torch.sign(shift[big])
    scale = (gain / math.sqrt(weight[0].numel())) * spread
    scale = scale.view(-1, *[1] * (weight.dim() - 1))
    weight.copy_(draw(seed, tag + ".weight", weight.shape) * scale)
    if layer.bias is not None:
        layer.bias.copy_(shift)


@torch.no_grad()
def carry_latent(unet: torch.nn.Module) -> None:
    """Let the first channels carry +latent and -latent over the longest skip to the last norm.

    silu(z) - silu(-z) = z, so conv_out can read the latent back, as trained denoisers do at high
    noise.  Several copies and a gain of 4 keep conv_out's rows even, so that they quantize like
    other layers' rows.
    """
    width = unet.conv_in.weight.shape[0]
    block = unet.up_blocks[-1]
    short = block.resnets[-1].conv_shortcut
    skip_at = short.weight.shape[1] - width
    adders = [block.resnets[-1].conv2]
    if hasattr(block, "attentions"):
        adders.append(block.attentions[-1].proj_out)
    for c in range(lanes(width)):
        for layer in (unet.conv_in, short):
            layer.weight[c] = 0
            layer.bias[c] = 0
        unet.conv_in.weight[c, c // 2 % 4, 1, 1] = (-1) ** c * 2.0
        short.weight[c, skip_at + c] = 1.0
        for layer in adders:
            layer.weight[c] *= 0.05
            layer.bias[c] = 0
        unet.conv_norm_out.weight[c], unet.conv_norm_out.bias[c] = 4.0, 0.0


def smooth_latents(seed: int, tag: str, n: int, size: int, channels: int = 4) -> torch.Tensor:
    """Unit-size low-frequency latents: what a clean latent looks like, roughly."""
    coarse = draw(seed, tag, (n, channels, max(2, size // 8), max(2, size // 8)))
    x = torch.nn.functional.interpolate(
        coarse, size=(size, size), mode="bicubic", align_corners=False
    )
    return x / x.pow(2).mean(dim=(1, 2, 3), keepdim=True).sqrt()


def guidance_embedding(scale: float, width: int | None, n: int = 1) -> torch.Tensor | None:
    """diffusers' own LCM guidance embedding; the pipelines feed it guidance_scale - 1."""
    if width is None:
        return None
    from diffusers import LatentConsistencyModelPipeline as Pipeline

    w = torch.tensor(scale - 1).repeat(n)
    return Pipeline.get_guidance_scale_embedding(None, w, embedding_dim=width)


@torch.no_grad()
def fit_unet_head(unet, scheduler, spec: Variant, context: torch.Tensor, seed: int) -> None:
    """Ridge-fit conv_out so that the random network is a (weak) denoiser."""
    kept = []
    hook = unet.conv_out.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    levels = torch.tensor([999, 499, 999, 259])
    gram = rhs = 0
    for b in range(spec.fit_batches):
        n = spec.fit_batch_size
        t = levels[(torch.arange(n) + b) % len(levels)]
        x0 = smooth_latents(seed, f"fit/x0/{b}", n, spec.sample)
        eps = draw(seed, f"fit/eps/{b}", x0.shape)
        noisy = scheduler.add_noise(x0, eps, t)
        target = eps if spec.prediction == "epsilon" else scheduler.get_velocity(x0, eps, t)
        ctx = context[torch.arange(n) % len(context)]
        unet(noisy, t, ctx, timestep_cond=guidance_embedding(8.0, spec.time_cond, n))
        feats = torch.nn.functional.unfold(kept.pop(), 3, padding=1)
        feats = feats.transpose(1, 2).flatten(0, 1).double()
        feats = torch.cat([feats, torch.ones(len(feats), 1, dtype=torch.float64)], 1)
        alpha = scheduler.alphas_cumprod[t].double()
        care = 1 - alpha if spec.prediction == "v_prediction" else (1 - alpha) / alpha
        # The error of x0 per error of the prediction.
        care = care.repeat_interleave(spec.sample**2)[:, None]
        gram = gram + feats.T @ (care * feats)
        rhs = rhs + feats.T @ (care * target.flatten(2).transpose(1, 2).flatten(0, 1).double())
    hook.remove()
    ridge = 1e-5 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solution = torch.linalg.solve(gram + ridge, rhs).float()
    unet.conv_out.weight.copy_(solution[:-1].T.reshape(unet.conv_out.weight.shape))
    unet.conv_out.bias.copy_(solution[-1])


@torch.no_grad()
def scale_output(
    layer: torch.nn.Conv2d, forward: Callable[[], torch.Tensor], std: float, mean: float
) -> None:
    """Rescale a last convolution so that forward() has the wanted spread.

    The factors are rounded to three digits, so that they are the same on every machine.
    """
    layer.bias.zero_()
    layer.weight.mul_(float(f"{std / forward().std().item():.3g}"))
    layer.bias.fill_(float(f"{mean - forward().mean().item():.3g}"))
