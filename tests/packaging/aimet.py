#!/usr/bin/env python3
"""AIMET reads the float graphs and encodings of a bundle for QNN, and simulates what they say.

    aimet.py bundle

`bundle` is an extracted bundle that was packed with `--with-float`. Each graph's simulation runs the golden inputs in both
forms of the encodings. Exit code 1: an output is less than 40 dB from the golden one, or AIMET reads no encoding. Needs the
package aimet-onnx, 2.42.
"""
import logging
import sys
from pathlib import Path

import onnx
from aimet_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim
from golden_run import float_graphs, sqnr_db

LEAST_DB = 40


def simulated(graph, encodings, feeds):
    """What AIMET's simulation gives, in the order of the outputs, and how many quantizers it has."""
    sim = QuantizationSimModel(
        onnx.load(str(graph)), param_type="int8", activation_type="int16", config_file="htp_v75",
        providers=["CPUExecutionProvider"], dummy_input=feeds,
    )
    load_encodings_to_sim(sim, str(encodings), strict=False)
    quantizers = sum(q.enabled for q in sim.qc_quantize_op_dict.values())
    # It renames outputs, and keeps their order.
    return sim.session.run(None, feeds), quantizers


def main():
    logging.disable(logging.WARNING)
    bundle = Path(sys.argv[1])
    failed = 0
    for name, graph, feeds, golden in float_graphs(bundle):
        for version in ("0.6.1", "1.0.0"):
            outputs, quantizers = simulated(graph, bundle / f"qnn/encodings-{version}/{name}.json", feeds)
            for (port, expected), output in zip(golden, outputs):
                near = sqnr_db(expected, output)
                failed += near < LEAST_DB or quantizers == 0
                print(f"{name}, {version}: {quantizers} quantizers, {port} {near:.1f} dB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
