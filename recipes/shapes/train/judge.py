"""The judge: reads shape, colour, background, size and position off an image. Trained on renders of all combinations,
its own, and kept as an ONNX file of four operators."""
import json

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

import data
import dataset
import models
from common import DEVICE, to_tensor, train

HEADS = {"shape": data.SHAPES, "color": data.CNAMES, "background": data.CNAMES, "size": data.SIZES,
         "position": data.POSITIONS}
WIDTHS = [len(labels) for labels in HEADS.values()]
BATCH = 96


def make(run, steps):
    rng = np.random.default_rng(99)
    attributes = np.concatenate([data.sample_attrs(12_000, rng), data.sample_attrs(4000, rng, held=True)])
    images = data.render(attributes, rng)
    judge = models.Tower(sum(WIDTHS)).to(DEVICE)

    def loss_of(step):
        which = np.random.randint(0, len(images), BATCH // run.world)
        x = to_tensor(images[which])
        # Generated pictures are a little noisy or soft.
        x = x + torch.rand(len(x), 1, 1, 1, device=DEVICE) * 0.08 * torch.randn_like(x)
        if step % 2:
            x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        truth = torch.from_numpy(attributes[which]).to(DEVICE)
        return sum(F.cross_entropy(head, truth[:, k]) for k, head in enumerate(judge(x).split(WIDTHS, 1))), {}

    train(run, "judge", judge, loss_of, steps=steps, peak=2e-3, decay=0.0, number=3)
    if run.rank == 0:
        judge = load(run)
        stored = dataset.load(run)
        right = (read(judge, stored["held_images"]) == stored["held"]).mean(0).round(4).tolist()
        run.note("judge on held-out renders", dict(zip(HEADS, right)))


def load(run):
    return run.load(models.Tower(sum(WIDTHS)), "judge.pt")


@torch.no_grad()
def read(judge, images):
    """Attributes of uint8 images, as indices into the labels of each head."""
    logits = torch.cat([judge(to_tensor(part)) for part in np.array_split(images, max(1, len(images) // 128))])
    return np.stack([head.argmax(1).cpu().numpy() for head in logits.split(WIDTHS, 1)], 1)


def export(run, folder):
    """Writes `judge.onnx`, image [1, 3, 64, 64] in [0, 1] to one row of logits for each head, and `judge.json`, the
    heads' labels."""
    judge = load(run).cpu()
    nodes, weights = [], []

    # Tensors have the names of identifiers, as the ONNX specification asks.
    identifier = lambda name: name.replace(".", "_").replace("/", "_")

    def add(op, name, inputs, **attributes):
        nodes.append(helper.make_node(op, inputs, [identifier(name)], name=name, **attributes))
        return identifier(name)

    def weight(name, values):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(values), identifier(name)))
        return identifier(name)

    x, layers = "image", list(judge.features)
    for index in range(0, len(layers), 3):
        conv, norm = layers[index], layers[index + 1]
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        kernel, bias = conv.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain
        if index == 0:
            # The network was trained on [-1, 1]. Its padding is 0 there, so the input is mapped, not the weights.
            x = add("Mul", "doubled", [x, weight("two", np.float32(2))])
            x = add("Sub", "centered", [x, weight("one", np.float32(1))])
        name = f"features.{index // 3}"
        x = add("Conv", name, [x, weight(name + ".weight", kernel.numpy()), weight(name + ".bias", bias.numpy())],
                kernel_shape=[3, 3], strides=list(conv.stride), pads=[1, 1, 1, 1])
        x = add("Relu", name + "/Relu", [x])
    x = add("Reshape", "flat", [x, weight("rows", np.array([1, judge.hidden[1].in_features], np.int64))])
    gemm = lambda name, x, w, b: add("Gemm", name, [x, weight(name + ".weight", w.numpy()), weight(name + ".bias", b.numpy())], transB=1)
    x = gemm("hidden", x, judge.hidden[1].weight, judge.hidden[1].bias)
    x = add("Relu", "hidden/Relu", [x])
    start, outputs = 0, []
    for name, width in zip(HEADS, WIDTHS):
        gemm(name, x, judge.head.weight[start:start + width], judge.head.bias[start:start + width])
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]))
        start += width
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])]
    graph = helper.make_graph(nodes, "judge", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="shapes")
    onnx.checker.check_model(model, full_check=True)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "judge.onnx")
    heads = [{"name": name, "labels": list(labels)} for name, labels in HEADS.items()]
    spec = {"schema": "judge/v1", "model": "judge.onnx", "heads": heads, "accuracy": ["shape", "color"]}
    (folder / "judge.json").write_text(json.dumps(spec, indent=2) + "\n")
