"""The teacher: noise prediction with min-SNR weights, and one caption in ten left out for classifier-free guidance."""
import torch

import dataset
import models
from common import min_snr, noise_levels, spread_timesteps, train

BATCH = 96


def make(run, steps):
    batches = dataset.Batches(run, clean=False)
    unet = models.unet("teacher")

    def loss_of(_):
        latents, states = batches.draw(BATCH // run.world, drop=0.1)
        t = spread_timesteps(len(latents))
        a, s = noise_levels(t)
        noise = torch.randn_like(latents)
        error = (unet(a * latents + s * noise, t, states, return_dict=False)[0] - noise).pow(2).mean((1, 2, 3))
        return (error * min_snr(t)).mean(), {"mse": error.mean().detach(), "high": error[t > 600].mean().detach()}

    train(run, "teacher", unet, loss_of, steps=steps, peak=1.2e-3, number=4, warm=150)
