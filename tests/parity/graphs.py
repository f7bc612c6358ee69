"""Checks on ONNX files themselves."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

FORBIDDEN = {
    "Bernoulli",
    "Einsum",
    "If",
    "Loop",
    "Multinomial",
    "NonZero",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Scan",
    "Shape",
}
# Exact names and order of what Optimum's pipelines feed and read.
INTERFACE = {
    "text_encoder": (["input_ids"], ["last_hidden_state"]),
    "unet": (["sample", "timestep", "encoder_hidden_states"], ["out_sample"]),
    "vae_decoder": (["latent_sample"], ["sample"]),
    "vae_encoder": (["sample"], ["latent_parameters"]),
    "taesd_decoder": (["latent_sample"], ["sample"]),
}


def check_graph(path: Path, component: str | None, opset: int, linked: bool) -> None:
    """onnx.checker's full check, static shapes, and the promises of the converter: of a component
    that is not folded also its names.

    The checker refuses weights in hard-linked files, so that `linked` ones are checked in a copy.
    """
    if linked:
        with tempfile.TemporaryDirectory() as work:
            shutil.copytree(path.parent, Path(work) / component)
            onnx.checker.check_model(str(Path(work) / component / path.name), full_check=True)
    else:
        onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path, load_external_data=False)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != opset:
        raise ValueError(f"expected opset {opset}, got {versions}")
    bad = sorted({node.op_type for node in model.graph.node} & FORBIDDEN)
    if bad:
        raise ValueError(f"operators that should not be there: {bad}")
    for value in [*model.graph.input, *model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if any(not dim.HasField("dim_value") for dim in dims):
            raise ValueError(f"`{value.name}` has a dynamic shape")
    if component is None:
        return
    inputs, outputs = INTERFACE[component]
    got = [value.name for value in model.graph.input]
    if [name for name in got if name != "timestep_cond"] != inputs:
        raise ValueError(f"expected inputs {inputs}, got {got}")
    got = [value.name for value in model.graph.output]
    if got != outputs:
        raise ValueError(f"expected outputs {outputs}, got {got}")


def require_same_graph(one: Path, other: Path) -> None:
    """Node for node and weight for weight the same, wherever the weights lie."""
    a, b = onnx.load(one), onnx.load(other)
    for kind in ("input", "output"):
        if list(getattr(a.graph, kind)) != list(getattr(b.graph, kind)):
            raise ValueError(f"graph {kind}s differ")
    if len(a.graph.node) != len(b.graph.node):
        raise ValueError(f"{len(a.graph.node)} nodes and {len(b.graph.node)}")
    for x, y in zip(a.graph.node, b.graph.node, strict=True):
        if x.SerializeToString(deterministic=True) != y.SerializeToString(deterministic=True):
            raise ValueError(f"node `{x.name}` ({x.op_type}) and `{y.name}` ({y.op_type}) differ")
    left = {tensor.name: tensor for tensor in a.graph.initializer}
    right = {tensor.name: tensor for tensor in b.graph.initializer}
    if left.keys() != right.keys():
        raise ValueError(f"initializers differ: {sorted(left.keys() ^ right.keys())[:4]}")
    for name, tensor in left.items():
        x, y = numpy_helper.to_array(tensor), numpy_helper.to_array(right[name])
        if x.dtype != y.dtype or not np.array_equal(x, y):
            raise ValueError(f"initializer `{name}` differs")
