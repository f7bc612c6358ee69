"""The autoencoder, and the tiny decoder that is distilled from it."""
import math

import numpy as np
import torch
import torch.nn as nn
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D

import dataset
import models
from common import DEVICE, to_bytes, to_tensor, train

BATCH = 16


def make(run, steps):
    images = dataset.load(run)["images"]
    vae = near_identity(models.vae())

    def loss_of(step):
        share = BATCH // run.world
        x = to_tensor(images[np.random.randint(0, len(images), share)])
        if step < 0.4 * steps:
            y0, x0 = np.random.randint(0, 33, 2)
            x = x[:, :, y0:y0 + 32, x0:x0 + 32]
        q = vae.encode(x).latent_dist
        z = q.sample()
        # The decoder also cleans up small errors in the latents: sampling in few steps leaves some.
        z = z + torch.rand(share, 1, 1, 1, device=DEVICE) * 0.12 * z.detach().std() * torch.randn_like(z)
        y = vae.decode(z).sample
        kl = 0.5 * (q.mean.pow(2) + q.var - 1 - q.logvar).mean()
        picture, l2 = picture_loss(y, x)
        return picture + 2e-4 * kl, {"l2": l2, "kl": kl}

    best = train(run, "vae", vae, loss_of, steps=steps, peak=3e-3, decay=0.995, weight_decay=1e-4, number=1)
    report(run, "vae", lambda x: best.decode(best.encode(x).latent_dist.mean).sample)


def make_tiny(run, steps):
    images = dataset.load(run)["images"]
    vae, tiny = run.load(models.vae(), "vae.pt"), models.tiny_vae()
    scale = torch.load(run.path("latents.pt"), weights_only=True)["scale"]

    def loss_of(_):
        share = BATCH // run.world
        x = to_tensor(images[np.random.randint(0, len(images), share)])
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mean
            z = z + torch.rand(share, 1, 1, 1, device=DEVICE) * 0.12 * z.std() * torch.randn_like(z)
            target = vae.decode(z).sample
        picture, l2 = picture_loss(tiny.decode(z * scale).sample, target)
        code = (tiny.encode(x).latents - z * scale).abs().mean()
        return picture + 0.1 * code, {"l2": l2, "code": code}

    best = train(run, "tiny", tiny, loss_of, steps=steps, peak=3e-3, decay=0.995, weight_decay=1e-4, number=8)
    report(run, "tiny", lambda x: best.decode(vae.encode(x).latent_dist.mean * scale).sample)


def picture_loss(y, x):
    """Distance of pictures and of their edges."""
    edges = lambda p: (p[..., 1:] - p[..., :-1], p[..., 1:, :] - p[..., :-1, :])
    l2 = (y - x).pow(2).mean()
    sharp = sum((a - b).abs().mean() for a, b in zip(edges(y), edges(x)))
    return (y - x).abs().mean() + 2 * l2 + 0.5 * sharp, l2


@torch.no_grad()
def report(run, name, reconstruct):
    real = dataset.load(run)["held_images"][:256]
    x = to_tensor(real)
    y = torch.cat([reconstruct(part).clamp(-1, 1) for part in x.split(32)])
    run.note(f"{name} PSNR, dB", round(10 * math.log10(4 / (y - x).pow(2).mean().item()), 2))
    rows = np.stack([real[:24], to_bytes(y[:24])])
    from sheet import save
    save(np.concatenate([rows[:, :12].reshape(24, 64, 64, 3), rows[:, 12:].reshape(24, 64, 64, 3)]), 12,
         run.path(f"sheets/{name}.png"))


@torch.no_grad()
def near_identity(vae):
    """Residual branches start at zero, shortcuts and resamplers near the identity: colours pass through the untrained
    network, which halves the training."""
    def pass_through(conv, down=False):
        conv.weight.mul_(0.3), conv.bias.zero_()
        for k in range(min(conv.weight.shape[:2])):
            kernel = conv.weight[k, k]
            if down:
                kernel[0:2, 0:2] += 0.25
            else:
                kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] += 1
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight), nn.init.zeros_(module.conv2.bias)
            if module.conv_shortcut is not None:
                pass_through(module.conv_shortcut)
        elif isinstance(module, (Downsample2D, Upsample2D)):
            pass_through(module.conv, isinstance(module, Downsample2D))
        elif isinstance(module, Attention):
            nn.init.zeros_(module.to_out[0].weight), nn.init.zeros_(module.to_out[0].bias)
    return vae
