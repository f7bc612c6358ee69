"""Clean synthetic pairs for the distillation: the teacher draws training captions with guidance, and what the judge does
not read back as asked is thrown away. Kept are the points that the sampler passed, and where each path ended."""
import numpy as np
import torch
import torch.distributed as dist

import data
import dataset
import judge
import models
import tokenizer
from common import ALPHAS, DEVICE, TOKENS, noise_levels, seed, to_bytes

PATHS = 4400
BATCH = 50
STRIDE = 50                     # timesteps from one point to the next
GUIDANCE = (2.0, 12.0)          # w, the guidance scale less 1
# Where paths start: in pure noise, and in noised renders at the timesteps of a few steps' schedules.
STARTS = [(999, 0.5), (499, 0.22), (759, 0.1), (259, 0.08), (879, 0.05), (139, 0.05)]


def make(run):
    batches = dataset.Batches(run, clean=True)
    teacher = run.load(models.unet("teacher"), "teacher.pt")
    vae, reader = run.load(models.vae(), "vae.pt"), judge.load(run)
    tok = tokenizer.load(run)
    rng = np.random.default_rng(7 + run.rank)
    kept, drawn = [], 0
    for number in range(PATHS // BATCH // run.world):
        seed(6, run.rank, number)
        start = rng.choice([t for t, _ in STARTS], p=[share for _, share in STARTS])
        attributes = data.sample_attrs(BATCH, rng)
        ids = tokenizer.encode(tok, [data.caption(a, rng, full=True)[0] for a in attributes])
        w = torch.empty(BATCH).uniform_(*GUIDANCE).to(DEVICE)
        x = torch.randn(BATCH, 4, 16, 16).to(DEVICE)
        if start < 999:
            # A render of the caption, so that the path can end where it says.
            q = vae.encode(torch.from_numpy(data.render(attributes, rng).transpose(0, 3, 1, 2)).to(DEVICE) / 127.5 - 1)
            a, s = noise_levels(torch.full((BATCH,), int(start), device=DEVICE))
            x = a * q.latent_dist.sample() * batches.scale + s * x
        points, end = follow(teacher, x, int(start), batches.states(ids), batches.empty, w)
        read = judge.read(reader, to_bytes(vae.decode(end / batches.scale).sample))
        good = torch.from_numpy((read == attributes)[:, [0, 1, 2, 4]].all(1))
        drawn += BATCH
        kept.append({"points": points.half().cpu()[good], "start": torch.full((int(good.sum()),), int(start)),
                     "end": end.half().cpu()[good], "ids": ids[good].to(torch.int16), "w": w.cpu()[good]})
        if number % 5 == 0:
            run.say(f"[trajectories] {number} of {PATHS // BATCH // run.world}, kept {sum(len(k['w']) for k in kept) / drawn:.3f}")
    torch.save({k: torch.cat([part[k] for part in kept]) for k in kept[0]}, run.path(f"trajectories_{run.rank}.pt"))
    if run.world > 1:
        dist.barrier()
    if run.rank == 0:
        parts = [torch.load(run.path(f"trajectories_{r}.pt"), weights_only=True) for r in range(run.world)]
        run.save({k: torch.cat([p[k] for p in parts]) for k in parts[0]}, "trajectories.pt")
        run.note("trajectories kept", round(sum(len(p["w"]) for p in parts) / PATHS, 4))


@torch.no_grad()
def follow(teacher, x, start, states, empty, w):
    """DDIM with guidance from `start` to the end. Points [n, 20, 4, 16, 16], in the order of falling timesteps from
    `start`, zeros after the last; and the end."""
    points = torch.zeros(len(x), 20, *x.shape[1:], device=x.device)
    both = torch.cat([empty.expand_as(states), states])
    w = w.view(-1, 1, 1, 1)
    for index, t in enumerate(range(start, 0, -STRIDE)):
        points[:, index] = x
        plain, told = teacher(torch.cat([x, x]), t, both, return_dict=False)[0].chunk(2)
        noise = told + w * (told - plain)
        a = ALPHAS[t]
        clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
        if t <= STRIDE:
            return points, clean
        a = ALPHAS[t - STRIDE]
        x = a.sqrt() * clean + (1 - a).sqrt() * noise
    raise ValueError(f"no path from {start}")
