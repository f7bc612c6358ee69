"""Images with captions on disk, and the batches that the UNets train on."""
import numpy as np
import torch

import data
import models
import tokenizer
from common import DEVICE, to_tensor

IMAGES = 32_000
WORDINGS = 4            # captions of each image


def make(run):
    images, attributes, captions = [], [], []
    rng = np.random.default_rng(1)
    tok = tokenizer.load(run)
    attributes = data.sample_attrs(IMAGES, rng)
    images = data.render(attributes, rng)
    varied = [tokenizer.encode(tok, [noisy(data.caption(a, rng)[0], rng) for a in attributes]) for _ in range(WORDINGS)]
    # Clean pairs: each caption names everything that is in its image, and nothing else.
    clean = [tokenizer.encode(tok, [data.caption(a, rng, full=True)[0] for a in attributes]) for _ in range(WORDINGS)]
    held = data.sample_attrs(2000, rng, held=True)
    np.savez(run.path("data.npz"), images=images, attributes=attributes, held=held, held_images=data.render(held, rng),
             varied=torch.stack(varied).numpy().astype(np.int16), clean=torch.stack(clean).numpy().astype(np.int16))


def noisy(caption, rng):
    """Now and then words that mean nothing here are put before or behind a caption, or into it."""
    if rng.random() < 0.15:
        words = caption.split()
        for _ in range(rng.integers(1, 4)):
            at = rng.integers(0, len(words) + 1) if rng.random() < 0.3 else [0, len(words)][rng.integers(2)]
            words.insert(at, tokenizer.EXTRA[rng.integers(len(tokenizer.EXTRA))])
        caption = " ".join(words)
    return caption


def load(run):
    return np.load(run.path("data.npz"))


@torch.no_grad()
def encode(run):
    """Every image's latent distribution, and the factor that gives the latents a variance of 1."""
    vae = run.load(models.vae(), "vae.pt")
    means, stds = [], []
    for batch in np.split(load(run)["images"], IMAGES // 64):
        q = vae.encode(to_tensor(batch)).latent_dist
        means.append(q.mean.half().cpu()), stds.append(q.std.half().cpu())
    means, stds = torch.cat(means), torch.cat(stds)
    scale = 1 / means.float().std().item()
    run.save({"mean": means, "std": stds, "scale": scale}, "latents.pt")
    run.say(f"latents: scale {scale:.4f}, noise of the encoder {stds.float().mean() * scale:.4f}")


class Batches:
    """Latents and text states of random images."""

    def __init__(self, run, clean):
        stored = torch.load(run.path("latents.pt"), weights_only=True)
        self.mean, self.std, self.scale = stored["mean"], stored["std"], stored["scale"]
        ids = load(run)
        self.ids = torch.from_numpy(ids["clean" if clean else "varied"])
        tok = tokenizer.load(run)
        self.text = run.load(models.text_encoder(len(tok)), "text.pt")
        self.empty = self.states(tokenizer.encode(tok, [""]))

    @torch.no_grad()
    def states(self, ids):
        return self.text(ids.long().to(DEVICE)).last_hidden_state

    def draw(self, n, drop=0.0):
        """`n` latents and text states, a share `drop` of which is that of the empty prompt."""
        which = torch.randint(0, len(self.mean), (n,))
        noise = torch.randn(self.mean[:n].shape)
        latents = ((self.mean[which].float() + self.std[which].float() * noise) * self.scale).to(DEVICE)
        states = self.states(self.ids[torch.randint(0, WORDINGS, (n,)), which])
        if drop:
            states[torch.rand(n) < drop] = self.empty
        return latents, states
