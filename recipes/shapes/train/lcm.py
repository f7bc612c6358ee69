"""Latent consistency distillation of the student (Luo et al. 2023), with the guidance embedding.

A consistency function gives, from any point of a sampler's path, the path's end. Luo et al. learn it by comparing
neighbouring points with a running average of the student; here whole paths are stored, so the end itself is the
target: the same function, without an error that has to travel through fifty points."""
import torch

import dataset
import models
from common import DEVICE, guidance_embedding, noise_levels, train
from trajectories import GUIDANCE, STRIDE

BATCH = 96
SIGMA = 0.5             # of the data, in the boundary condition
TIMESTEP_SCALING = 10.0
# Timesteps after the first in schedules of few steps.
LATER = (499, 499, 499, 759, 259, 679, 339, 879, 139)


def make(run, steps):
    paths = torch.load(run.path("trajectories.pt"), weights_only=True)
    batches = dataset.Batches(run, clean=True)
    unet = models.unet("lcm")
    weights = torch.load(run.path("student.pt"), weights_only=True)
    embedding = unet.time_embedding.cond_proj.weight
    unet.load_state_dict({**weights, "time_embedding.cond_proj.weight": torch.zeros_like(embedding)})
    whole = (paths["start"] == 999).nonzero()[:, 0]
    lengths = (paths["start"] + STRIDE - 1) // STRIDE

    def loss_of(_):
        n = BATCH // run.world // 2
        which = torch.randint(0, len(lengths), (n,))
        # Every other time the path's beginning: there few-step sampling stands.
        at = torch.where(torch.rand(n) < 0.5, 0, (torch.rand(n) * lengths[which]).long())
        which[0], at[0] = whole[torch.randint(0, len(whole), ())], 0
        t = (paths["start"][which] - STRIDE * at).to(DEVICE)
        x, end = paths["points"][which, at].float().to(DEVICE), paths["end"][which].float().to(DEVICE)
        # Pure noise, mixed with some more: there are few beginnings, and they are not to be learnt by heart.
        mix = torch.rand(n, 1, 1, 1, device=DEVICE) * 0.5 * (t == 999).view(-1, 1, 1, 1)
        x = (1 - mix**2).sqrt() * x + mix * torch.randn_like(x)
        states = batches.states(paths["ids"][which])
        w = guidance_embedding(paths["w"][which].to(DEVICE))
        # What the first step makes of noise is noised again and seen by a later step, which is to mend it.
        first = t == 999
        again = few(int(first.sum()), LATER)
        with torch.no_grad():
            made = estimate(unet, x[first], t[first], states[first], w[first])
        seen = noised(made, again)
        # Renders: a hundred times as many captions as there are paths.
        render, caption = batches.draw(n)
        when = few(n, (999, 999, 999, *LATER))
        any_w = guidance_embedding(torch.empty(n, device=DEVICE).uniform_(*GUIDANCE))
        x, t = torch.cat([x, seen, noised(render, when)]), torch.cat([t, again, when])
        states, w = torch.cat([states, states[first], caption]), torch.cat([w, w[first], any_w])
        error = estimate(unet, x, t, states, w) - torch.cat([end, end[first], render])
        huber = (error.pow(2) + 1e-4).sqrt() - 1e-2
        per = huber.mean((1, 2, 3)).detach()
        return huber.mean(), {"first": per[:n][first].mean(), "again": per[n:-n].mean(), "renders": per[-n:].mean()}

    train(run, "lcm", unet, loss_of, steps=steps, peak=8e-4, number=6, weight_decay=0.0)


def few(n, timesteps):
    return torch.tensor(timesteps, device=DEVICE)[torch.randint(0, len(timesteps), (n,))]


def noised(latents, t):
    a, s = noise_levels(t)
    return a * latents + s * torch.randn_like(latents)


def estimate(unet, x, t, states, w):
    """The path's end, with LCM's boundary condition."""
    a, s = noise_levels(t)
    scaled = (t.float() * TIMESTEP_SCALING).view(-1, 1, 1, 1)
    skip = SIGMA**2 / (scaled**2 + SIGMA**2)
    out = scaled / (scaled**2 + SIGMA**2).sqrt()
    noise = unet(x, t, states, timestep_cond=w, return_dict=False)[0]
    return skip * x + out * (x - s * noise) / a
