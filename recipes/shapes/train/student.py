"""The student: the teacher's blocks by BK-SDM's rule (Kim et al. 2023), then distillation of output and features."""
import torch

import dataset
import models
from common import min_snr, noise_levels, spread_timesteps, train

BATCH = 96


def make(run, steps):
    batches = dataset.Batches(run, clean=True)
    teacher = run.load(models.unet("teacher"), "teacher.pt")
    unet = inherit(teacher, models.unet("student"))
    taught, learnt = tap(teacher), tap(unet)

    def loss_of(_):
        latents, states = batches.draw(BATCH // run.world, drop=0.1)
        t = spread_timesteps(len(latents))
        a, s = noise_levels(t)
        noise = torch.randn_like(latents)
        x = a * latents + s * noise
        with torch.no_grad():
            wanted = teacher(x, t, states, return_dict=False)[0]
        output = unet(x, t, states, return_dict=False)[0]
        weights = min_snr(t)
        mean = lambda error: (error.pow(2).mean((1, 2, 3)) * weights).mean()
        # Features are compared relative to their own power, so that no block outweighs the others.
        relative = lambda k: (learnt[k] - taught[k]).pow(2).mean() / taught[k].pow(2).mean().clamp(min=1e-6)
        task, out = mean(output - noise), mean(output - wanted)
        features = sum(relative(k) for k in taught) / len(taught)
        return task + 2 * out + 0.1 * features, {"task": task.detach(), "out": out.detach(), "features": features.detach()}

    train(run, "student", unet, loss_of, steps=steps, peak=8e-4, number=5)


@torch.no_grad()
def inherit(teacher, student):
    """A down block keeps its first ResNet and attention, an up block its first and last; the mid block goes."""
    old, new = teacher.state_dict(), student.state_dict()
    for name in new:
        parts = name.split(".")
        if parts[0] == "up_blocks" and parts[2] in ("resnets", "attentions") and parts[3] == "1":
            parts[3] = "2"
        new[name].copy_(old[".".join(parts)])
    return student


def tap(unet):
    """The output of each block of the latest call."""
    outputs = {}
    for k, block in enumerate([*unet.down_blocks, *unet.up_blocks]):
        block.register_forward_hook(lambda m, i, o, k=k: outputs.__setitem__(k, o[0] if isinstance(o, tuple) else o))
    return outputs
