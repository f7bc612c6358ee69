#!/usr/bin/env python3
"""Compiles the graphs of this bundle with ONNX Runtime's QNN provider: build/GRAPH_ctx.onnx and a context binary.

A line for each graph. Exit code 1: a graph is not taken whole, or more operators than `--allow-float` are in floating
point. The environment variable QNN_LIB names a folder whose libQnnHtp.so compiles, as the QAIRT SDK has it in
lib/x86_64-linux-clang, and whose libonnxruntime_providers_qnn.so is the provider, if it is there.
"""
import argparse
import ctypes
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEVICE = OPTIONS
ADDR_NO_RANDOMIZE = 0x40000


def repeatable():
    """Starts again without randomized addresses, which the compiler's output depends on, and with room for its recursion."""
    libc = ctypes.CDLL(None)
    found = libc.personality(0xFFFFFFFF)
    if found & ADDR_NO_RANDOMIZE or libc.personality(found | ADDR_NO_RANDOMIZE) == -1:
        return
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (most, most))
    os.execv(sys.executable, [sys.executable, *sys.argv])


# The library's part stands here.
def kind(code):
    """Whether QNN's Qnn_DataType_t is a floating-point type."""
    return code >> 8 == 2


def floats(graph):
    """Operators whose result is a floating-point tensor inside the graph, each with its results."""
    tensors = graph["tensors"]
    found = []
    for name, node in graph["nodes"].items():
        results = [t for t in node["output_names"] if t in tensors and kind(tensors[t]["data_type"])]
        border = node["type"] == "Dequantize" and tensors[node["output_names"][0]]["type"] == 1
        if results and not border:
            found.append({"node": name, "kind": node["type"], "results": results})
    return found


def compile_graph(name, model, build, sharing):
    """Compiles one graph; `sharing` are the provider's session options for graphs of one context."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Refusals are warnings of the provider that name nodes.
    options.log_severity_level = 2
    context = build / f"{name}_ctx.onnx"
    for stale in [context, *build.glob(f"{name}_ctx*.bin")]:
        stale.unlink(missing_ok=True)
    for key, value in {
        "session.disable_cpu_ep_fallback": "1",
        "ep.context_enable": "1",
        "ep.context_file_path": str(context),
        "ep.context_embed_mode": "0",
        **sharing,
    }.items():
        options.add_session_config_entry(key, value)
    start = time.time()
    with tempfile.TemporaryDirectory() as dump:
        more = {"dump_json_qnn_graph": "1", "json_qnn_graph_dir": dump, **DEVICE}
        if sharing:
            more["enable_htp_weight_sharing"] = "1"
        provide(options, more)
        onnxruntime.InferenceSession(str(model), options)
        graphs = [json.loads(p.read_text())["graph"] for p in Path(dump).glob("*.json") if "tensor_log" not in p.name]
    return {
        "graphs": len(graphs),
        "operators": sum(len(graph["nodes"]) for graph in graphs),
        "floats": [f for graph in graphs for f in floats(graph)],
        "bytes": sum(p.stat().st_size for p in build.glob(f"{name}_ctx*.bin")),
        "seconds": round(time.time() - start, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def show(name, found, allowed):
    """Prints what became of a graph; whether it is as it should be."""
    number = len(found["floats"])
    too_many = allowed is not None and number > allowed
    verdict = "TOO MUCH IN FLOAT" if too_many else "IN PARTS" if found["graphs"] != 1 else "ok"
    print(
        f"{verdict}: {name}: {found['operators']} operators in {found['graphs']} graph, {number} in floating point, "
        f"{found['bytes'] / 1e6:.1f} MB, {found['seconds']:.1f} s",
        flush=True,
    )
    for example in found["floats"][:8] if too_many else []:
        print(f"  {example['node']} ({example['kind']})")
    return verdict == "ok"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", help="graphs to compile [default: those that draw a picture]")
    parser.add_argument("--allow-float", type=int, help="operators in floating point that are no failure [default: any]")
    parser.add_argument("--share-weights", action="store_true", help="put all graphs into one context, with equal weights once")
    parser.add_argument("--json", action="store_true", help="print an object for each graph")
    arguments = parser.parse_args()
    # The compiler writes the paths of the models into its files.
    os.chdir(ROOT)
    build = Path("build")
    build.mkdir(exist_ok=True)
    failed = 0
    manifest = json.loads(Path("manifest.json").read_text())
    wanted = arguments.graphs or [run["component"] for run in manifest["golden"]["runs"]]
    components = [c for c in manifest["components"] if c["name"] in wanted]
    for index, component in enumerate(components):
        name, last = component["name"], index + 1 == len(components)
        sharing = {"ep.share_ep_contexts": "1", **({"ep.stop_share_ep_contexts": "1"} if last else {})}
        try:
            found = compile_graph(name, component["file"], build, sharing if arguments.share_weights else {})
        except Exception as error:  # The provider reports every refusal as one type.
            failed += 1
            if arguments.json:
                print(json.dumps({"component": name, "error": str(error)[:2000]}), flush=True)
            else:
                print(f"REFUSED: {name}: {str(error)[:2000]}", flush=True)
            continue
        if arguments.json:
            print(json.dumps({"component": name, **found}), flush=True)
        else:
            failed += not show(name, found, arguments.allow_float)
    return 1 if failed else 0


if __name__ == "__main__":
    repeatable()
    sys.exit(main())
