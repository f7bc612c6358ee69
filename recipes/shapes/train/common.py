"""What all stages share: the run's folder, seeds, processes, the training loop with checkpoints, diffusion maths."""
import copy
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

TOKENS = 32             # of a prompt, with its begin and end
LATENT = 16             # sides of a latent; images are 4 times as wide
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Run:
    """A run's folder, and this process's place among those that train together."""

    def __init__(self, folder, rank=0, world=1):
        self.folder, self.rank, self.world = Path(folder), rank, world
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "sheets").mkdir(exist_ok=True)

    def path(self, name):
        return self.folder / name

    def load(self, model, name):
        model.load_state_dict(torch.load(self.path(name), map_location="cpu", weights_only=True))
        return model.to(DEVICE).eval().requires_grad_(False)

    def save(self, content, name):
        if self.rank == 0:
            torch.save(content, self.path(name + ".tmp"))
            os.replace(self.path(name + ".tmp"), self.path(name))

    def say(self, text):
        if self.rank == 0:
            print(time.strftime("%H:%M:%S"), text, flush=True)

    def note(self, name, value):
        """Adds a line to `results.json`."""
        if self.rank == 0:
            path = self.path("results.json")
            results = json.loads(path.read_text()) if path.exists() else {}
            results[name] = value
            path.write_text(json.dumps(results, indent=1))
        self.say(f"{name}: {json.dumps(value)}")


def seed(*numbers):
    """Seeds torch and numpy from a place in the run, so that a restarted run draws what an unbroken one does."""
    n = 0
    for k in numbers:
        n = (n * 1_000_003 + k) % (2**31)
    torch.manual_seed(n)
    np.random.seed(n)


class Ema:
    """Running average of a model's parameters."""

    def __init__(self, model, decay):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model):
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), [p.detach() for p in model.parameters()], 1 - decay)
        for own, other in zip(self.model.buffers(), model.buffers()):
            own.copy_(other)


def train(run, name, model, loss_of, *, steps, peak, decay=0.998, weight_decay=0.01, betas=(0.9, 0.99), warm=100,
          number=0, every=200, after=None):
    """AdamW with a cosine schedule over `steps`; gradients are averaged over the processes.

    `loss_of(step)` gives the loss and a dictionary of figures to print. The state is saved every `every` steps under
    `NAME_state.pt`, and the run goes on from there. Returns the averaged model.
    """
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=betas, weight_decay=weight_decay)
    ema = Ema(model, decay)
    start, state = 0, run.path(f"{name}_state.pt")
    if state.exists():
        s = torch.load(state, map_location=DEVICE, weights_only=True)
        model.load_state_dict(s["model"]), ema.model.load_state_dict(s["ema"]), optimizer.load_state_dict(s["optimizer"])
        start, ema.updates = s["step"], s["step"]
        run.say(f"[{name}] goes on at step {start}")
    figures, began = {}, time.time()
    for step in range(start, steps):
        seed(number, run.rank, step)
        rate = peak * min(1, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, shown = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(run, parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        ema.update(model)
        if after:
            after(model)
        for key, value in {"loss": loss, **shown}.items():
            figures.setdefault(key, []).append(float(torch.as_tensor(value).detach()))
        if step % 50 == 0:
            text = " ".join(f"{k} {sum(v) / len(v):.4f}" for k, v in figures.items())
            run.say(f"[{name}] {step}/{steps} {(time.time() - began) / (step - start + 1):.2f} s/step {text}")
            figures = {}
        if step % every == every - 1:
            run.save({"model": model.state_dict(), "ema": ema.model.state_dict(), "optimizer": optimizer.state_dict(),
                      "step": step + 1}, f"{name}_state.pt")
    run.save(ema.model.state_dict(), f"{name}.pt")
    return ema.model


def average_gradients(run, parameters):
    if run.world == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= run.world
    at = 0
    for g in gradients:
        g.copy_(flat[at:at + g.numel()].view_as(g))
        at += g.numel()


# Diffusion, as Stable Diffusion 1.x has it.
SCHEDULER = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0).float().to(DEVICE)


def noise_levels(t):
    """Weights of the latent and of the noise at timesteps `t`, to be multiplied with [n, c, h, w]."""
    a = ALPHAS[t].view(-1, 1, 1, 1)
    return a.sqrt(), (1 - a).sqrt()


def min_snr(t, gamma=5.0):
    """Loss weights of Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy"."""
    snr = ALPHAS[t] / (1 - ALPHAS[t])
    return snr.clamp(max=gamma) / snr


def spread_timesteps(n):
    """`n` timesteps, one from each n-th of the range: less variance at the same mean."""
    return ((torch.randperm(n) + torch.rand(n)) * (1000 / n)).long().clamp(max=999).to(DEVICE)


def guidance_embedding(w, width=256):
    """diffusers' `get_guidance_scale_embedding` of `w`, the guidance scale less 1."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=w.device) * -(math.log(10000.0) / (half - 1)))
    angles = (w * 1000.0)[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


def to_tensor(images):
    """uint8 [n, h, w, 3] becomes float [n, 3, h, w] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(127.5).sub_(1).to(DEVICE)


def to_bytes(x):
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
