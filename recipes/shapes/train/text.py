"""The text encoder, trained with a small image tower as CLIP is (Radford et al. 2021), then frozen."""
import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import dataset
import models
import tokenizer
from common import DEVICE, to_tensor, train

BATCH = 128
ATTRIBUTES = (6, 8, 8, 3, 9)


class Pair(nn.Module):
    """Text and image side, their projections, and linear readers of what an image shows from its caption's state:
    with these the words' meanings are learnt in a tenth of the steps."""

    def __init__(self, vocabulary):
        super().__init__()
        self.text, self.tower = models.text_encoder(vocabulary), models.Tower(models.CONTEXT)
        self.project = nn.Linear(models.CONTEXT, models.CONTEXT, bias=False)
        self.readers = nn.Linear(models.CONTEXT, sum(ATTRIBUTES))
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.to(DEVICE)


def make(run, steps):
    stored = dataset.load(run)
    images, attributes = stored["images"], stored["attributes"]
    ids = {kind: torch.from_numpy(stored[kind]) for kind in ("varied", "clean")}
    pair = Pair(len(tokenizer.load(run)))
    # Half of a batch is groups of eight images with the same two colours: hard to tell apart.
    groups = {}
    for index, a in enumerate(attributes):
        groups.setdefault((a[1], a[2]), []).append(index)
    groups = [np.array(g) for g in groups.values()]

    def loss_of(step):
        share = BATCH // run.world
        chosen = np.random.choice(len(groups), share // 16, replace=False)
        hard = [np.random.choice(groups[g], 8, replace=False) for g in chosen]
        which = np.concatenate([*hard, np.random.randint(0, len(images), share // 2)])
        wording = np.random.randint(dataset.WORDINGS)
        clean = step % 2 == 0
        words = ids["clean" if clean else "varied"][wording, which].long().to(DEVICE)
        pooled = pair.text(words).pooler_output
        t, i = F.normalize(pair.project(pooled), dim=-1), F.normalize(pair.tower(to_tensor(images[which])), dim=-1)
        logits = pair.scale.exp().clamp(max=60) * t @ i.T
        y = torch.arange(len(which), device=DEVICE)
        contrast = (F.cross_entropy(logits, y) + F.cross_entropy(logits.T, y)) / 2
        truth = torch.from_numpy(attributes[which]).to(DEVICE)
        heads = pair.readers(pooled).split(ATTRIBUTES, 1)
        read = sum(F.cross_entropy(h, truth[:, k]) for k, h in enumerate(heads)) / 5
        right = torch.stack([h.argmax(1) == truth[:, k] for k, h in enumerate(heads)]).float().mean()
        return contrast + read, {"contrast": contrast, "read": read, "clean" if clean else "varied": right}

    best = train(run, "clip", pair, loss_of, steps=steps, peak=2e-3, decay=0.99, betas=(0.9, 0.98), number=2, warm=50)
    run.save(best.text.state_dict(), "text.pt")
