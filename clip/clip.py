"""Names of OpenAI's module ``clip.clip``; see clip/model.py."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import open_clip
import torch

from clip.model import CLIP, build_model
from qprompt.clip import tiny, weights
from qprompt.clip.tokenizer import tokenize

__all__ = ["available_models", "build_model", "load", "tokenize"]

# from names to what _download takes: there an address, here the name again
_MODELS = {name: name for name in (*weights.OPENAI_NAMES, weights.TINY_NAME)}


def available_models() -> list[str]:
    """Return the names of the models that :func:`load` knows."""
    return list(_MODELS)


def _download(url: str, root: str | None = None) -> str:
    """Return the path of a model's weights, which are fetched where they are missing.

    Args:
        url: a value of ``_MODELS``.
        root: not used; the file lies in ``~/.cache/clip``.
    """
    return _tiny_file() if url == weights.TINY_NAME else os.fspath(weights.openai_file(url))


@functools.cache
def _tiny_file() -> str:
    """Write the embedded model's weights where trainers can read them, until the process ends."""
    folder = tempfile.mkdtemp(prefix="clip-tiny-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = os.path.join(folder, "tiny.pt")
    torch.save(tiny.state_dict(), path)
    return path


def load(
    name: str, device: str | torch.device = "cpu", jit: bool = False
) -> tuple[CLIP, Callable[[Any], torch.Tensor]]:
    """Return a model, in half precision on a GPU, and the transform of the images it takes.

    Args:
        name: as for :func:`clip.load`.
        device: where the model goes.
        jit: not used; the model is no TorchScript.
    """
    precision = "fp32" if torch.device(device).type == "cpu" else "fp16"
    model = CLIP(weights.load(name, precision, device)).eval()
    return model, open_clip.image_transform(model.visual.input_resolution, is_train=False)
