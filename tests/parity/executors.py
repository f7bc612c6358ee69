"""Three programs that evaluate one ONNX file: edgetool (tract), onnxruntime, OpenVINO."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.numpy import load_file, save_file

Tensors = dict[str, np.ndarray]


class Executor(Protocol):
    """Evaluates a graph once on named inputs."""

    name: str

    def run(self, model: Path, inputs: Tensors) -> Tensors: ...


class Edgetool:
    """The `edgetool` binary; evaluation goes through `edgetool eval`."""

    name = "edgetool"

    def __init__(self, binary: Path, threads: int) -> None:
        self.binary, self.threads = binary, threads

    def call(self, *args: str | Path) -> str:
        """Runs one command; returns stdout. An error carries the end of stderr."""
        command = [str(self.binary), *map(str, args)]
        environment = {**os.environ, "NO_COLOR": "1", "CI": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"`edgetool {args[0]}` ended with {done.returncode}: {done.stderr.strip()[-300:]}"
            )
        return done.stdout

    def run(self, model: Path, inputs: Tensors) -> Tensors:
        with tempfile.TemporaryDirectory() as folder:
            given, result = Path(folder) / "in.safetensors", Path(folder) / "out.safetensors"
            save_file({name: np.ascontiguousarray(x) for name, x in inputs.items()}, given)
            self.call("eval", model, "--inputs", given, "-o", result, "--threads", self.threads)
            return load_file(result)


class OnnxRuntime:
    """onnxruntime's CPU provider."""

    name = "onnxruntime"

    def __init__(self, threads: int) -> None:
        self.threads, self.sessions = threads, {}

    def session(self, model: Path):
        """The session of a file, made once."""
        import onnxruntime

        if model not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            self.sessions[model] = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        return self.sessions[model]

    def run(self, model: Path, inputs: Tensors) -> Tensors:
        session = self.session(model)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))

    def forget(self) -> None:
        """Frees the sessions."""
        self.sessions.clear()


class OpenVino:
    """OpenVINO's CPU plugin, told to compute in float32."""

    name = "openvino"

    def __init__(self, threads: int) -> None:
        self.threads, self.models = threads, {}

    def compiled(self, model: Path):
        """The compiled model of a file, made once."""
        import openvino

        if model not in self.models:
            settings = {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": self.threads,
            }
            self.models[model] = openvino.Core().compile_model(str(model), "CPU", settings)
        return self.models[model]

    def run(self, model: Path, inputs: Tensors) -> Tensors:
        compiled = self.compiled(model)
        result = compiled(inputs)
        return {output.get_any_name(): result[output].copy() for output in compiled.outputs}

    def forget(self) -> None:
        """Frees the compiled models."""
        self.models.clear()


def relative_l2(got: np.ndarray, want: np.ndarray) -> float:
    """|got - want| / |want|, in float64; infinite where a value is not finite."""
    if got.size != want.size:
        raise ValueError(f"expected shape {want.shape}, got {got.shape}")
    got = got.reshape(want.shape).astype(np.float64)
    want = want.astype(np.float64)
    error = np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30)
    return float(error) if np.isfinite(error) else float("inf")
