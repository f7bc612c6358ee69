"""The golden run of an extracted bundle, and its float graphs, which are to give the same."""
import json
from pathlib import Path

import numpy as np


def tensor(bundle, entry):
    return np.fromfile(bundle / entry["file"], dtype=entry["dtype"]).reshape(entry["shape"])


def float_graphs(bundle):
    """Each run of a graph that has a float form: the graph's name, the form's path, what it reads by name, and the name
    and golden value of each output."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    files = {c["name"]: c["file"].removeprefix("model/") for c in manifest["components"]}
    for run in manifest["golden"]["runs"]:
        name = run["component"]
        places = [bundle / "qnn/float" / files[name], bundle / "qnn/float" / name / Path(files[name]).name]
        path = next((place for place in places if place.exists()), None)
        if path is not None:
            feeds = {entry["name"]: tensor(bundle, entry) for entry in run["inputs"]}
            yield name, path, feeds, [(entry["name"], tensor(bundle, entry)) for entry in run["outputs"]]


def sqnr_db(expected, output):
    expected = expected.astype(np.float64)
    return 10 * np.log10(np.sum(expected**2) / np.sum((output - expected) ** 2))
