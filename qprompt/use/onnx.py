"""An applied prompt as ONNX graphs, which run without PyTorch."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

from .. import clip
from ..clip.algebra import QUICK_GELU
from ..errors import InvalidOptionError
from .model import AppliedPrompt

OPSET = 20
SCRIPT = Path(__file__).with_name("classify.py")


class ImageTower(nn.Module):
    """Images to features of length 1, with the prompts of the image tower in it."""

    def __init__(self, model: AppliedPrompt) -> None:
        super().__init__()
        self.model = _without_quick_gelu(model)
        self.backbone = self.model.backbone  # whose parameters are this module's

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.model.encode_image(images), dim=-1)


class ConditionalClasses(nn.Module):
    """Features of images, of length 1, to logits, for a prompt that depends on the image."""

    def __init__(self, model: AppliedPrompt, classnames: Sequence[str]) -> None:
        super().__init__()
        self.backbone = _without_quick_gelu(model).backbone
        self.layout = model.layout(classnames)
        learned: Any = model.learned  # with both of these
        self.context, self.meta_net = learned.context, learned.meta_net

    def forward(self, features: Tensor) -> Tensor:
        prompts = self.layout(self.context + self.meta_net(features)[:, None])
        texts = clip.encode_prompts(self.backbone, prompts)
        return clip.compare_features(self.backbone, features, texts)


@torch.no_grad()
def _without_quick_gelu(model: AppliedPrompt) -> AppliedPrompt:
    """Return a copy with SiLU in place of QuickGELU, whose factor moves into the weights.

        W_2 QuickGELU(W_1 x + b_1) = (W_2 / a) silu(a W_1 x + a b_1),  QuickGELU(x) = x sigmoid(a x)

    That leaves plain products, which onnxruntime can quantize.
    """
    model = copy.copy(model)
    model.backbone = copy.deepcopy(model.backbone)
    for layers in model.backbone.modules():
        if isinstance(layers, nn.Sequential) and any(isinstance(m, QuickGELU) for m in layers):
            first: Any = layers[0]
            second: Any = layers[2]
            first.weight.mul_(QUICK_GELU)
            first.bias.mul_(QUICK_GELU)
            second.weight.div_(QUICK_GELU)
            layers[1] = nn.SiLU()
    return model


@torch.no_grad()
def _write_graph(module: nn.Module, example: Tensor, names: Sequence[str], path: Path) -> None:
    """Write a module of one input and one output, named so; their first axes are the batch."""
    module(example)  # else tracing would leave its own kind of tensors in caches
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own calls
        program: Any = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=names[:1],
            output_names=names[1:],
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )
    program.save(path)


def write_tower(model: AppliedPrompt, path: Path, int8: bool = False) -> None:
    """Write the image tower: ``images`` (n, 3, height, width) to ``features`` (n, embed_dim).

    Args:
        model: in float32.
        path: of the file.
        int8: round the weights of its matrix products to 8 bits, by onnxruntime's dynamic
            quantization, which also rounds what they are multiplied with.
    """
    example = torch.zeros(2, 3, *model.preprocess.size)
    _write_graph(ImageTower(model), example, ["images", "features"], path)
    if int8:
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(path, path, op_types_to_quantize=["MatMul"], per_channel=True)


def write_classes(model: AppliedPrompt, classnames: Sequence[str], folder: Path, stem: str) -> str:
    """Write what turns image features into logits; return the file's name.

    That is a NumPy file (classes, embed_dim) of text features times the logit scale, or, where they
    depend on the image, a graph from ``features`` (n, embed_dim) to ``logits`` (n, classes).
    """
    if not model.conditional:
        matrix = model.backbone.logit_scale.exp() * model.classifier(classnames)
        np.save(folder / f"{stem}.npy", matrix.numpy())
        return f"{stem}.npy"
    example = F.normalize(torch.ones(2, clip.embed_dim(model.backbone)), dim=-1)
    graph = ConditionalClasses(model, classnames)
    _write_graph(graph, example, ["features", "logits"], folder / f"{stem}.onnx")
    return f"{stem}.onnx"


def describe(model: AppliedPrompt, classnames: Sequence[str]) -> dict[str, Any]:
    """Return labels and preprocessing, which programs need beside graphs and matrices."""
    preprocess = model.preprocess
    return {
        "labels": list(classnames),
        "resize": max(preprocess.size),  # the shorter side, before the centre is cropped
        "size": list(preprocess.size),
        "interpolation": preprocess.interpolation,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }


@contextmanager
def new_folder(folder: str) -> Iterator[Path]:
    """Yield an empty folder that takes its name only when all is written.

    Raises:
        InvalidOptionError: there is something under that name, or no folder to put it into.
    """
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InvalidOptionError(f"'{folder}' is there and not empty; name a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def export_onnx(
    model: AppliedPrompt, classnames: Sequence[str], folder: str, int8: bool = False
) -> None:
    """Write a new folder with image tower, class matrix, labels and a program that uses them.

    Args:
        model: in float32.
        classnames: what images are to be told apart by.
        folder: its name.
        int8: as for :func:`write_tower`.

    Raises:
        InvalidOptionError: as :func:`new_folder`.
    """
    with new_folder(folder) as scratch:
        write_tower(model, scratch / "image.onnx", int8)
        write_classes(model, classnames, scratch, "classes")
        described = describe(model, classnames)
        (scratch / "labels.json").write_text(json.dumps(described, indent=1) + "\n")
        shutil.copy(SCRIPT, scratch)
