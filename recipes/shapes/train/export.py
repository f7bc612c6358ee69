"""Writes `model/`, a diffusers pipeline in float16 with the tiny decoder beside it, `judge/` and `prompts/`."""
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline

import data
import evaluate
import judge
import models
import tokenizer
from common import SCHEDULER

CALIBRATION, EVALUATION = 128, 200


def make(run):
    recipe = run.path("recipe")
    folder = recipe / "model"
    shutil.rmtree(folder, ignore_errors=True)
    tok = tokenizer.load(run)
    text = run.load(models.text_encoder(len(tok)), "text.pt").cpu().half()
    vae = run.load(models.vae(), "vae.pt").cpu().half()
    scale = torch.load(run.path("latents.pt"), weights_only=True)["scale"]
    vae.register_to_config(scaling_factor=scale)
    unet = run.load(models.unet("lcm"), "lcm.pt").cpu().half()
    scheduler = LCMScheduler(**SCHEDULER, original_inference_steps=50, clip_sample=False, set_alpha_to_one=True,
                             steps_offset=1)
    StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tok, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False).save_pretrained(folder)
    run.load(models.tiny_vae(), "tiny.pt").cpu().half().save_pretrained(folder / "taesd")
    # The classic files, which every CLIP tokenizer reads.
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(run.path("tokenizer"), folder / "tokenizer")
    judge.export(run, recipe / "judge")
    prompts(recipe / "prompts")
    weights = [p for p in folder.rglob("*.safetensors")]
    run.say(f"model: {sum(p.stat().st_size for p in weights) / 1e6:.2f} MB in {len(weights)} files")


def prompts(folder):
    """One prompt a line, then a tab and what it asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, number, held, seed in [("calibration", CALIBRATION, False, 21), ("evaluation", EVALUATION, True, 11)]:
        attributes, captions = evaluate.prompts(number, held, seed)
        truth = lambda a: "; ".join(f"{head}={labels[k]}" for (head, labels), k in zip(judge.HEADS.items(), a))
        lines = [f"{caption}\t{truth(a)}\n" for a, caption in zip(attributes, captions)]
        (folder / f"{name}.txt").write_text("".join(lines))
