"""Prompt accuracy of the UNets on held-out prompts, as a look while training: the project's own figures are made by
edgetool from the exported model."""
import numpy as np
import torch
from diffusers import DDIMScheduler, LCMScheduler

import data
import judge
import models
import sheet
import tokenizer
from common import DEVICE, SCHEDULER, guidance_embedding, to_bytes

NUMBER = 200


def prompts(number, held, seed):
    """Attributes and captions, every other one in the plainest wording."""
    rng = np.random.default_rng(seed)
    attributes = data.sample_attrs(number, rng, held=held)
    wording = lambda k, a: data.plain_caption(a) if k % 2 == 0 else data.caption(a, rng, full=True)[0]
    return attributes, [wording(k, a) for k, a in enumerate(attributes)]


@torch.no_grad()
def ddim(unet, states, empty, steps, scale, seed):
    scheduler = DDIMScheduler(**SCHEDULER, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(steps)
    x = torch.randn(len(states), 4, 16, 16, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    both = torch.cat([empty.expand(len(states), -1, -1), states])
    for t in scheduler.timesteps:
        plain, told = unet(torch.cat([x, x]), t, both, return_dict=False)[0].chunk(2)
        x = scheduler.step(plain + scale * (told - plain), t, x).prev_sample
    return x


@torch.no_grad()
def lcm(unet, states, steps, scale, seed):
    scheduler = LCMScheduler(**SCHEDULER, original_inference_steps=50)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(states), 4, 16, 16, generator=generator).to(DEVICE)
    w = guidance_embedding(torch.full((len(states),), scale - 1.0, device=DEVICE))
    for t in scheduler.timesteps:
        output = unet(x, t, states, timestep_cond=w, return_dict=False)[0]
        x, denoised = scheduler.step(output, t, x, generator=generator, return_dict=False)
    return denoised


class Bench:
    def __init__(self, run, number=NUMBER):
        self.run = run
        self.attributes, self.captions = prompts(number, True, 11)
        tok = tokenizer.load(run)
        text = run.load(models.text_encoder(len(tok)), "text.pt")
        states = lambda captions: text(tokenizer.encode(tok, captions).to(DEVICE)).last_hidden_state
        with torch.no_grad():
            self.states, self.empty = states(self.captions), states([""])
        self.vae = run.load(models.vae(), "vae.pt")
        self.scale = torch.load(run.path("latents.pt"), weights_only=True)["scale"]
        self.judge = judge.load(run)

    @torch.no_grad()
    def score(self, name, sampler):
        parts = [sampler(states, 100 + k) for k, states in enumerate(self.states.split(50))]
        images = np.concatenate([to_bytes(self.vae.decode(z / self.scale).sample) for z in parts])
        right = judge.read(self.judge, images) == self.attributes
        result = dict(zip(judge.HEADS, right.mean(0).round(4).tolist()))
        result["shape and color"] = round(float(right[:, :2].all(1).mean()), 4)
        self.run.note(name, result)
        sheet.save(images[:48], 12, self.run.path(f"sheets/{name.replace(' ', '_')}.png"))


def make(run):
    """Teacher and student with DDIM and guidance, the distilled model with LCM."""
    bench = Bench(run)
    for kind in ("teacher", "student"):
        unet = run.load(models.unet(kind), f"{kind}.pt")
        for scale in (7.5,):
            bench.score(f"{kind} 25 steps guidance {scale}",
                        lambda states, seed: ddim(unet, states, bench.empty, 25, scale, seed))
    unet = run.load(models.unet("lcm"), "lcm.pt")
    for steps in (1, 2, 4):
        bench.score(f"lcm {steps} steps", lambda states, seed: lcm(unet, states, steps, 8.0, seed))
