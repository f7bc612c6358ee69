"""Write noise_cases.json: what torch.randn draws on the CPU, and the integers below it.

Run on an x86 machine with AVX2: from 16 values on, torch's result depends on its vector kernel.
Values are float32 bits, eight hexadecimal digits each, run together. Long draws keep their first and
last 32 values and a checksum of all: FNV-1a over the 32-bit words, h = (h ^ word) * prime mod 2**64.

    python tests/reference/make_noise_cases.py --out crates/edge-lcm/tests/data/noise_cases.json
"""

import argparse
import json

import numpy
import torch

SEEDS = [0, 1, 42, 2**32 + 5, 2**63, 123456789, 2**64 - 1]
LONG = [1000, 1024, 4096, 16384, 16391, 65536]
SEQUENCES = [[4, 64, 3, 16384], [1, 1, 1], [3, 3, 16, 1], [15, 16, 17, 15], [5, 100, 0, 2], [16384, 16384, 7]]
KEEP = 100


def generator(seed):
    return torch.Generator("cpu").manual_seed(seed)


def checksum(words):
    h = 0xCBF29CE484222325
    for word in words.tolist():
        h = (h ^ word) * 0x100000001B3 % 2**64
    return f"{h:016x}"


def draw(n, gen):
    words = torch.randn(n, generator=gen).numpy().view(numpy.uint32)
    text = lambda part: "".join(f"{w:08x}" for w in part.tolist())
    if n <= KEEP:
        return {"n": n, "values": text(words)}
    return {"n": n, "first": text(words[:32]), "last": text(words[-32:]), "checksum": checksum(words)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        raise SystemExit("expected a machine with AVX2")
    torch.set_num_threads(1)
    cases = [{"seed": str(SEEDS[n % len(SEEDS)]), "draws": [draw(n, generator(SEEDS[n % len(SEEDS)]))]} for n in range(KEEP + 1)]
    cases += [{"seed": str(seed), "draws": [draw(n, generator(seed))]} for seed in SEEDS for n in LONG]
    for seed in SEEDS:
        for sequence in SEQUENCES:
            gen = generator(seed)
            cases.append({"seed": str(seed), "draws": [draw(n, gen) for n in sequence]})
    # random_ on int64 keeps the low 63 bits of two draws, the first one high.
    integers = [{"seed": str(s), "values": torch.empty(700, dtype=torch.int64).random_(generator=generator(s)).numpy()} for s in SEEDS]
    for case in integers:
        values = case["values"]
        case.update(values=[str(v) for v in values[:8].tolist()], checksum=checksum(values))
    head = json.dumps({"made_with": {"torch": torch.__version__.split("+")[0]}, "integers": integers})[:-1]
    with open(out, "w", encoding="utf-8") as file:
        file.write(head + ', "cases": [\n' + ",\n".join(json.dumps(c) for c in cases) + "\n]}\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
