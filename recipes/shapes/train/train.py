"""Trains the model, its judge and its decoders, and writes the recipe: python train.py --work FOLDER

Stages whose result is in FOLDER are skipped; an interrupted stage goes on from its last state. On a CPU two processes
share the work; where there is a GPU, one process uses it.
"""
import argparse
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).parent))
from common import DEVICE, Run


class Stage(NamedTuple):
    name: str
    function: str           # module and function
    after: tuple = ()       # stages whose results it reads
    steps: int | None = None    # of training
    shared: bool = False    # all processes work on it together


STAGES = [
    Stage("tokenizer", "tokenizer.make"),
    Stage("dataset", "dataset.make", ("tokenizer",)),
    Stage("vae", "vae.make", ("dataset",), 1400),
    Stage("text", "text.make", ("dataset",), 1000),
    Stage("judge", "judge.make", ("dataset",), 1200),
    Stage("latents", "dataset.encode", ("vae",)),
    Stage("teacher", "teacher.make", ("latents", "text", "judge"), 1400, shared=True),
    Stage("student", "student.make", ("teacher",), 400, shared=True),
    Stage("trajectories", "trajectories.make", ("teacher",), shared=True),
    Stage("lcm", "lcm.make", ("student", "trajectories"), 3000, shared=True),
    Stage("tiny", "vae.make_tiny", ("latents",), 500),
    Stage("figures", "evaluate.make", ("lcm",)),
    Stage("export", "export.make", ("lcm", "tiny", "judge")),
]


def work(rank, world, folder, stage, port):
    torch.set_num_threads(1 if DEVICE.type == "cpu" else 4)
    torch.use_deterministic_algorithms(DEVICE.type == "cpu")
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    torch.manual_seed(0)
    module, function = stage.function.split(".")
    run = Run(folder, rank, world)
    getattr(__import__(module), function)(run, *([stage.steps] if stage.steps else []))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data, states and results")
    parser.add_argument("--stage", action="append", choices=[s.name for s in STAGES], help="run these stages only")
    parser.add_argument("--processes", type=int, default=2 if DEVICE.type == "cpu" else 1)
    parser.add_argument("--port", type=int, default=29511, help="on which the processes talk, on this machine")
    args = parser.parse_args()
    done = args.work / "done"
    done.mkdir(parents=True, exist_ok=True)
    waiting = [s for s in STAGES if (not args.stage or s.name in args.stage) and not (done / s.name).exists()]
    running = {}
    while waiting or running:
        busy = sum(world for _, world, _ in running.values())
        for stage in list(waiting):
            world = args.processes if stage.shared else 1
            ready = not any(s.name in stage.after for s in [*waiting, *running])
            if ready and busy + world <= args.processes:
                rest = (world, str(args.work), stage, args.port)
                running[stage] = mp.spawn(work, rest, nprocs=world, join=False), world, time.time()
                waiting.remove(stage)
                busy += world
        for stage, (processes, _, began) in list(running.items()):
            if processes.join(timeout=1):
                (done / stage.name).touch()
                del running[stage]
                print(f"{stage.name}: {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
