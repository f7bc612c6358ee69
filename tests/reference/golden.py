"""What diffusers and transformers compute from a checkpoint, as named tensors."""

from __future__ import annotations

import copy

import torch
from variants import Variant
from weights import draw, guidance_embedding, smooth_latents


class Golden:
    """Named float32 and integer tensors, each with a note."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.about: dict[str, str] = {}

    def put(self, name: str, value: torch.Tensor, note: str) -> None:
        """Keeps `value`, floats as float32."""
        kind = torch.float32 if value.is_floating_point() else value.dtype
        self.tensors[name] = value.detach().to(kind).contiguous().clone()
        self.about[name] = f"{note}; {list(value.shape)}"


class GivenNoise:
    """Replaces randn_tensor inside diffusers' LCM scheduler by a given sequence."""

    def __init__(self, noise: torch.Tensor) -> None:
        self.queue = list(noise)

    def __enter__(self) -> None:
        import diffusers.schedulers.scheduling_lcm as module

        self.module, self.saved = module, module.randn_tensor
        module.randn_tensor = lambda shape, **_: self.queue.pop(0).reshape(shape)

    def __exit__(self, *_) -> None:
        self.module.randn_tensor = self.saved


@torch.no_grad()
def make_golden(
    models, scheduler, spec: Variant, ids: torch.Tensor, empty_ids: torch.Tensor, seed: int
) -> Golden:
    """Every golden tensor of a variant."""
    golden = Golden()
    put = golden.put
    text = models["text_encoder"]
    hidden = text(ids, output_hidden_states=True)
    put("text.ids", ids, "token ids")
    put("text.hidden", hidden.last_hidden_state, "text encoder last_hidden_state")
    penultimate = hidden.hidden_states[-2]
    put("text.penultimate", penultimate, "hidden state before the last layer (no final norm)")
    for g in (1.0, 1.5, 4.0, 7.5, 8.0) if spec.time_cond else ():
        note = f"guidance embedding for guidance_scale {g:g} (w = {g - 1:g})"
        put(f"w_embedding.{g:g}", guidance_embedding(g, spec.time_cond), note)
    golden_unet(golden, models, scheduler, spec, hidden.last_hidden_state, seed)
    golden_vae(golden, models, spec, seed)
    golden_scheduler(golden, scheduler, seed)
    golden_pipeline(golden, models, scheduler, spec, ids, empty_ids, seed)
    return golden


def golden_unet(golden: Golden, models, scheduler, spec: Variant, hidden, seed: int) -> None:
    """UNet outputs: every timestep of the schedule, a non-square batch of two, an odd size."""
    put, unet, size = golden.put, models["unet"], spec.sample
    scheduler.set_timesteps(spec.unet_steps)
    cond = guidance_embedding(8.0, spec.time_cond)
    context = hidden[:1]
    latent = draw(seed, "golden/latent", (1, 4, size, size))
    put("unet.latent", latent, "UNet input")
    put("unet.context", context, "UNet encoder_hidden_states")
    if cond is not None:
        put("unet.w_embedding", cond, "UNet timestep_cond (guidance_scale 8)")
    for t in scheduler.timesteps.tolist():
        out = unet(latent, t, context, timestep_cond=cond).sample
        put(f"unet.out.{t}", out, f"UNet output at timestep {t}")
    if size >= 64:
        return
    wide = draw(seed, "golden/wide", (2, 4, size, size * 3 // 2))
    both = hidden[torch.arange(2) % len(hidden)]
    wide_t = torch.tensor([999, 499])
    wide_cond = guidance_embedding(8.0, spec.time_cond, 2)
    put("unet_wide.latent", wide, "batch of 2, not square")
    put("unet_wide.timestep", wide_t, "one timestep per image")
    put("unet_wide.context", both, "one prompt per image")
    put("unet_wide.out", unet(wide, wide_t, both, timestep_cond=wide_cond).sample, "UNet output")
    odd = draw(seed, "golden/odd", (1, 4, size, size + 4))
    note = "a width that does not halve evenly: skips and upsampling meet at an odd size"
    put("unet_odd.latent", odd, note)
    out = unet(odd, 499, context, timestep_cond=cond).sample
    put("unet_odd.out", out, "UNet output at timestep 499 with unet.context")


def golden_vae(golden: Golden, models, spec: Variant, seed: int) -> None:
    """Images of both decoders, latent moments of the encoder."""
    put, vae, taesd, size = golden.put, models["vae"], models["taesd"], spec.sample
    noise = draw(seed, "golden/clean_noise", (1, 4, size, size))
    clean = smooth_latents(seed, "golden/clean", 1, size) + 0.3 * noise
    scaled = clean / vae.config.scaling_factor
    put("vae.latent", clean, "pipeline-scale latent, about unit size")
    put("vae.decode_input", scaled, "what vae.decode is given: latent / scaling_factor")
    put("vae.image", vae.decode(scaled).sample, "VAE output, about [-1, 1], not clamped")
    image = taesd.decode(clean / taesd.config.scaling_factor).sample
    put("taesd.image", image, "TAESD output for vae.latent (its scaling_factor is 1)")
    photo = smooth_latents(seed, "golden/photo", 1, size * 8, channels=3)
    photo = (0.4 * photo + 0.05 * draw(seed, "golden/grain", photo.shape)).clamp(-1, 1)
    put("vae_encoder.sample", photo, "VAE encoder input, an image in [-1, 1]")
    moments = vae.encode(photo).latent_dist.parameters
    put("vae_encoder.latent_parameters", moments, "mean and log variance, on the channel axis")


def golden_scheduler(golden: Golden, scheduler, seed: int) -> None:
    """LCMScheduler steps on a small sample."""
    put = golden.put
    put("lcm.alphas_cumprod", scheduler.alphas_cumprod, "alphas_cumprod over 1000 training steps")
    for n in (1, 2, 4, 8):
        scheduler.set_timesteps(n)
        steps = scheduler.timesteps
        put(f"lcm{n}.timesteps", steps, f"{n}-step schedule")
        pairs = [scheduler.get_scalings_for_boundary_condition_discrete(t) for t in steps]
        put(f"lcm{n}.c_skip", torch.stack([p[0] for p in pairs]), "boundary scaling c_skip")
        put(f"lcm{n}.c_out", torch.stack([p[1] for p in pairs]), "boundary scaling c_out")
        shape = (1, 4, 8, 8)
        sample = draw(seed, f"lcm{n}/sample", shape)
        noise = draw(seed, f"lcm{n}/noise", (n - 1, *shape))
        outputs = draw(seed, f"lcm{n}/model_output", (n, *shape))
        put(f"lcm{n}.sample", sample, "starting sample")
        if n > 1:
            put(f"lcm{n}.noise", noise, "noise injected after each step but the last")
        put(f"lcm{n}.model_output", outputs, "model output given to each step")
        prev, denoised = [], []
        with GivenNoise(noise):
            for t, output in zip(steps, outputs, strict=True):
                sample, estimate = scheduler.step(output, t, sample, return_dict=False)
                prev.append(sample)
                denoised.append(estimate)
        put(f"lcm{n}.prev_sample", torch.stack(prev), "scheduler.step prev_sample per step")
        put(f"lcm{n}.denoised", torch.stack(denoised), "scheduler.step denoised per step")


def golden_pipeline(
    golden: Golden, models, scheduler, spec: Variant, ids, empty_ids, seed: int
) -> None:
    """Whole runs of diffusers' pipelines, with given noise."""
    put, size = golden.put, spec.sample
    runs = [(n, 8.0 if spec.time_cond else 1.0) for n in spec.steps]
    if not spec.time_cond:
        runs.append((2, 1.5))
    put("pipe.ids", ids[:1], "prompt token ids")
    put("pipe.empty_ids", empty_ids, "ids of the empty prompt, for classifier-free guidance")
    start = draw(seed, "pipe/latent", (1, 4, size, size))
    noise = draw(seed, "pipe/noise", (max(spec.steps), 1, 4, size, size))
    put("pipe.latent", start, "starting noise")
    put("pipe.noise", noise, "noise for step i is pipe.noise[i]; the last step uses none")
    for n, g in runs:
        run = run_pipeline(models, scheduler, spec, ids[:1], empty_ids, n, g, start, noise)
        log, _, decoded, image = run
        tag = f"pipe.s{n}.g{g:g}"
        columns = [torch.stack(column) for column in zip(*log, strict=True)]
        put(tag + ".model_output", columns[0], "what the scheduler was given (after guidance)")
        put(tag + ".prev_sample", columns[1], "latent after each step")
        put(tag + ".denoised", columns[2], "denoised estimate per step")
        put(tag + ".decoded", decoded, "VAE output, not clamped")
        if n == 2:
            put(tag + ".image", image, "float image in [0, 1] before rounding to 8 bits")
            rounded = (image * 255).round().to(torch.uint8)
            put(tag + ".image_u8", rounded, "8-bit image values (round half to even)")


def run_pipeline(models, scheduler, spec: Variant, ids, empty_ids, steps, guidance, latent, noise):
    """(model output, prev sample, denoised) per step, final latent, decoded, image in [0, 1]."""
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionPipeline

    text = models["text_encoder"]
    sched = LCMScheduler.from_config(scheduler.config)
    log = []
    real_step = sched.step

    def step(model_output, timestep, sample, **_):
        prev, denoised = real_step(model_output, timestep, sample, return_dict=False)
        log.append((model_output.clone(), prev.clone(), denoised.clone()))
        return prev, denoised

    sched.step = step
    parts = dict(
        vae=models["vae"],
        text_encoder=text,
        tokenizer=None,
        unet=models["unet"],
        scheduler=sched,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    call = dict(
        prompt_embeds=text(ids).last_hidden_state,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=latent.clone(),
        output_type="latent",
    )
    if spec.time_cond:
        pipe = LatentConsistencyModelPipeline(**parts)
    else:
        pipe = StableDiffusionPipeline(**parts)
        call["negative_prompt_embeds"] = text(empty_ids).last_hidden_state
    pipe.set_progress_bar_config(disable=True)
    with GivenNoise(noise), torch.no_grad():
        final = pipe(**call).images
    decoded = models["vae"].decode(final / models["vae"].config.scaling_factor).sample
    image = pipe.image_processor.postprocess(decoded, output_type="pt", do_denormalize=[True])
    return log, final, decoded, image


@torch.no_grad()
def rounding_error(golden: Golden, models, scheduler, spec: Variant, ids, empty_ids) -> float:
    """How far the float32 2-step image is from the same run in float64: the figure below which
    two correct float32 programs cannot be expected to agree."""
    g = 8.0 if spec.time_cond else 1.0
    want = golden.tensors[f"pipe.s2.g{g:g}.decoded"].double()
    double = {name: copy.deepcopy(model).double() for name, model in models.items()}
    start, noise = golden.tensors["pipe.latent"].double(), golden.tensors["pipe.noise"].double()
    run = run_pipeline(double, scheduler, spec, ids[:1], empty_ids, 2, g, start, noise)
    decoded = run[2]
    return float((want - decoded).norm() / decoded.norm())
