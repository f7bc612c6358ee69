"""Write scheduler_cases.json: diffusers' LCMScheduler over many configurations, on small vectors, float32.

Each case: config overrides, set_timesteps arguments, the resulting timesteps, and per step c_skip, c_out,
alphas_cumprod, prev_sample and denoised for the given sample, model outputs and noise. Configurations that
set_timesteps refuses are kept with the error's text.

The last bits depend on the machine. scheduler_cases_avx2.json is this script's output on an x86 machine with
AVX2 (AVX-512 gives the same bytes), scheduler_cases.json its output on one with other vector kernels.

    python tests/reference/make_scheduler_cases.py --out crates/edge-lcm/tests/data/scheduler_cases_avx2.json
"""

import argparse
import hashlib
import json

import diffusers
import diffusers.schedulers.scheduling_lcm as lcm
import torch
from diffusers import LCMScheduler

BASE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "original_inference_steps": 50,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
CONFIGS = [
    {},
    {"set_alpha_to_one": True},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
    {"beta_schedule": "linear"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"},
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    {"clip_sample": True},
    {"clip_sample": True, "clip_sample_range": 2.5},
    {"timestep_scaling": 1.0},
    {"original_inference_steps": 100},
    {"original_inference_steps": 20},
    {"trained_betas": [0.001 + 0.00001 * i for i in range(1000)]},
    {"thresholding": True, "sample_max_value": 1.5},
]
CALLS = [{"num_inference_steps": n} for n in (1, 2, 3, 4, 5, 6, 7, 8, 50)] + [
    {"num_inference_steps": 4, "original_inference_steps": 25},
    {"num_inference_steps": 2, "original_inference_steps": 1000},
    {"num_inference_steps": 4, "strength": 0.5},
    {"num_inference_steps": 2, "strength": 0.6},
    {"timesteps": [999, 759, 499, 259]},
    {"timesteps": [999, 500]},
    {"num_inference_steps": 51},
    {"num_inference_steps": 30, "strength": 0.5},
    {"timesteps": [499, 999]},
]
NOTE = (
    "every number is the shortest 9-digit decimal of a float32; "
    "the step after the last timestep keeps prev = denoised"
)


def draw(tag, *shape):
    """Normal values that depend on the tag alone."""
    seed = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:7], "little")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def number(value):
    return float(f"{value:.9g}")


def numbers(tensor):
    return [number(v) for v in tensor.float().flatten().tolist()]


def make_case(index, config, call):
    case = {"config": config, "call": call}
    scheduler = LCMScheduler(**{**BASE, **config})
    try:
        scheduler.set_timesteps(**call)
    except ValueError as error:
        return {**case, "error": str(error)}
    count = len(scheduler.timesteps)
    case["timesteps"] = scheduler.timesteps.tolist()
    if count > 8:
        return case
    tag = f"{index}/{sorted(call.items())}"
    sample = draw(tag + "x", 1, 1, 2, 4)
    noise, outputs = draw(tag + "n", count, 1, 1, 2, 4), draw(tag + "o", count, 1, 1, 2, 4)
    case["sample"] = numbers(sample)
    case["noise"] = [numbers(v) for v in noise[: count - 1]]
    case["model_output"] = [numbers(v) for v in outputs]
    case["steps"] = []
    queue = list(noise)
    lcm.randn_tensor = lambda shape, **_: queue.pop(0)
    for t, output in zip(scheduler.timesteps, outputs):
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(t)
        previous, denoised = scheduler.step(output, t, sample, return_dict=False)
        step = {"t": int(t), "alpha_cumprod": number(scheduler.alphas_cumprod[t])}
        step.update(c_skip=number(c_skip), c_out=number(c_out))
        step.update(prev_sample=numbers(previous), denoised=numbers(denoised))
        case["steps"].append(step)
        sample = previous
    return case


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    few = CALLS[1:4:2] + CALLS[11:12]
    cases = [make_case(i, config, call) for i, config in enumerate(CONFIGS) for call in (few if i else CALLS)]
    made_with = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    head = json.dumps({"made_with": made_with, "base": BASE, "note": NOTE})[:-1]
    with open(out, "w", encoding="utf-8") as file:
        file.write(head + ', "cases": [\n' + ",\n".join(json.dumps(c) for c in cases) + "\n]}\n")
    print(len(cases), "cases,", sum("error" in c for c in cases), "refused")


if __name__ == "__main__":
    main()
