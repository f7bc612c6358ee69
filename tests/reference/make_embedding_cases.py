"""Write embedding_cases.json: diffusers' guidance and timestep embeddings, as float32 in nine digits.

    python tests/reference/make_embedding_cases.py --out crates/edge-lcm/tests/data/embedding_cases.json
"""

import argparse
import json

import torch
from diffusers import LatentConsistencyModelPipeline
from diffusers.models.embeddings import get_timestep_embedding


def numbers(tensor):
    return [float(f"{v:.9g}") for v in tensor.flatten().tolist()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    guidance = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    cases = []
    for w, dim in [(7.5, 256), (0.0, 256), (4.25, 32), (14.0, 256), (7.5, 7)]:
        cases.append({"kind": "guidance", "w": w, "dim": dim, "values": numbers(guidance(None, torch.tensor([w]), dim))})
    for t, dim, flip, shift in [(999, 320, True, 0), (499, 320, True, 0), (259, 32, True, 0), (999, 64, False, 1), (0, 32, True, 0), (139, 9, False, 1)]:
        values = get_timestep_embedding(torch.tensor([t]), dim, flip_sin_to_cos=flip, downscale_freq_shift=shift)
        cases.append({"kind": "timestep", "t": t, "dim": dim, "flip_sin_to_cos": flip, "freq_shift": shift, "values": numbers(values)})
    with open(out, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
