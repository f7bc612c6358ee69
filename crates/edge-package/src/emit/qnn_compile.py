#!/usr/bin/env python3
"""Compiles the graphs of this bundle with ONNX Runtime's QNN provider: build/GRAPH_ctx.onnx and a context binary.

A line for each graph. Exit code 1: a graph is not taken whole, or more operators than `--allow-float` are in floating point.
"""
import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime
import onnxruntime_qnn as qnn

ROOT = Path(__file__).resolve().parents[1]
DEVICE = OPTIONS


def kind(code):
    """Whether QNN's Qnn_DataType_t is a floating-point type."""
    return code >> 8 == 2


def floats(graph):
    """Operators whose result is a floating-point tensor inside the graph."""
    tensors = graph["tensors"]
    found = []
    for name, node in graph["nodes"].items():
        border = node["type"] == "Dequantize" and tensors[node["output_names"][0]]["type"] == 1
        if not border and any(kind(tensors[t]["data_type"]) for t in node["output_names"] if t in tensors):
            found.append(f"{name} ({node['type']})")
    return found


def compile_graph(name, model, build):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    context = build / f"{name}_ctx.onnx"
    for stale in [context, *build.glob(f"{name}_ctx*.bin")]:
        stale.unlink(missing_ok=True)
    for key, value in {
        "session.disable_cpu_ep_fallback": "1",
        "ep.context_enable": "1",
        "ep.context_file_path": str(context),
        "ep.context_embed_mode": "0",
    }.items():
        options.add_session_config_entry(key, value)
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == qnn.get_ep_name()]
    if not devices:
        sys.exit("ONNX Runtime finds no device of the QNN provider on this machine")
    start = time.time()
    with tempfile.TemporaryDirectory() as dump:
        provider = {"backend_path": qnn.get_qnn_htp_path(), "dump_json_qnn_graph": "1", "json_qnn_graph_dir": dump}
        options.add_provider_for_devices(devices[:1], {**provider, **DEVICE})
        onnxruntime.InferenceSession(str(model), options)
        graphs = [json.loads(p.read_text())["graph"] for p in Path(dump).glob("*.json") if "tensor_log" not in p.name]
    size = sum(p.stat().st_size for p in build.glob(f"{name}_ctx*.bin"))
    return graphs, size, time.time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", help="graphs to compile [default: those that draw a picture]")
    parser.add_argument("--allow-float", type=int, help="operators in floating point that are no failure [default: any]")
    arguments = parser.parse_args()
    onnxruntime.register_execution_provider_library(qnn.get_ep_name(), qnn.get_library_path())
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    failed = 0
    manifest = json.loads((ROOT / "manifest.json").read_text())
    wanted = arguments.graphs or [run["component"] for run in manifest["golden"]["runs"]]
    for component in (c for c in manifest["components"] if c["name"] in wanted):
        name = component["name"]
        try:
            graphs, size, seconds = compile_graph(name, ROOT / component["file"], build)
        except Exception as error:  # The provider reports every refusal as one type.
            print(f"REFUSED: {name}: {str(error)[:2000]}")
            failed += 1
            continue
        found = [f for graph in graphs for f in floats(graph)]
        operators = sum(len(graph["nodes"]) for graph in graphs)
        too_many = arguments.allow_float is not None and len(found) > arguments.allow_float
        failed += too_many or len(graphs) != 1
        verdict = "TOO MUCH IN FLOAT" if too_many else "IN PARTS" if len(graphs) != 1 else "ok"
        print(
            f"{verdict}: {name}: {operators} operators in {len(graphs)} graph, {len(found)} in floating point, "
            f"{size / 1e6:.1f} MB, {seconds:.1f} s",
            flush=True,
        )
        for example in found[:8] if too_many else []:
            print(f"  {example}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
