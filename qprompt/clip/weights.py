"""Find CLIP weights by name or path and build the model."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as short
from typing import Any

import open_clip
import torch
from open_clip.model import (
    CLIP,
    build_model_from_openai_state_dict,
    convert_weights_to_lp,
    get_cast_dtype,
)
from open_clip.pretrained import download_pretrained_from_url, get_pretrained_url
from safetensors.torch import load_file
from torch import Tensor

from . import slip, tiny
from .errors import ClipError, WeightsNotFoundError

OPENAI_NAMES = ("RN50", "RN101", "ViT-B/32", "ViT-B/16", "ViT-L/14")
PRECISIONS = ("fp32", "fp16", "bf16")
TINY_NAME = "tiny"
WRAPPERS = ("model", "model_state_dict", "state_dict")  # keys below which files keep weights


def load(name: str, precision: str = "fp32", device: str | torch.device = "cpu") -> CLIP:
    """Load a CLIP model in evaluation mode.

    Args:
        name: one of

            - an OpenAI name: ``RN50``, ``RN101``, ``ViT-B/32``, ``ViT-B/16``, ``ViT-L/14``; the
              file in ``~/.cache/clip`` is used if it is there, without asking the network;
            - ``architecture:pretrained``, both in open_clip's names, such as
              ``ViT-B-32:laion2b_s34b_b79k``; ``pretrained`` may be a file of that architecture;
            - a file with weights in OpenAI's or SLIP's layout: OpenAI's TorchScript archive, or a
              plain state dict as ``.pt`` or ``.safetensors``, also of a DataParallel and below the
              key ``model_state_dict``, ``state_dict`` or ``model``; in OpenAI's the activation is
              taken to be QuickGELU, so give weights that were trained with GELU (LAION's) as
              ``architecture:file``;
            - ``tiny``: the embedded model.
        precision: ``fp32``, ``fp16`` or ``bf16``. In half precision the layer norms and embeddings
            stay in float32, as in OpenAI's models.
        device: where the model goes.

    Returns:
        An ``open_clip.model.CLIP`` (or another open_clip model class, for ``architecture:...``).

    Raises:
        WeightsNotFoundError: no weights on disk and none from the network; says which file to put
            where.
        ClipError: unknown name, or a file that holds no CLIP weights.
    """
    if precision not in PRECISIONS:
        raise ClipError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if name == TINY_NAME:
        model = build(tiny.state_dict(), precision)
    elif name in OPENAI_NAMES:
        model = build(_read(openai_file(name)), precision)
    elif os.path.isfile(name):
        model = build(_read(Path(name)), precision)
    elif ":" in name:
        model = _load_open_clip(name, precision)
    else:
        known = [TINY_NAME, *OPENAI_NAMES]
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ClipError(
            f"unknown backbone {name!r}: neither a file nor one of {', '.join(known)}, nor an "
            f"open_clip 'architecture:pretrained' pair.{hint}"
        )
    return model.to(device).eval()


def openai_file(name: str) -> Path:
    """Return the path of OpenAI's archive: the cached one as it is, else a fresh download."""
    url = get_pretrained_url(name.replace("/", "-"), "openai")
    target = Path("~/.cache/clip").expanduser() / url.rsplit("/", 1)[-1]
    if target.is_file():
        published = url.split("/")[-2]
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        if digest != published:
            warnings.warn(
                f"{target} is not OpenAI's published file (SHA-256 {digest[:12]}..., published "
                f"{published[:12]}...); it is used as it is; delete it to have it fetched again",
                stacklevel=3,
            )
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:  # whole or not at all
            os.replace(download_pretrained_from_url(url, cache_dir=scratch), target)
        return target
    except (OSError, RuntimeError) as error:
        raise WeightsNotFoundError(
            f"no weights for {name!r}: {target} does not exist and the download failed ({error}). "
            f"Fetch {url} on a machine with a network and put it at {target}, or give the path of "
            "any file with these weights as the backbone's name (--backbone)"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """Read a state dict in OpenAI's or SLIP's layout from a TorchScript archive or a plain file."""
    state = _weights(_load_file(path), path)
    if not {"text_projection", "token_embedding.weight", "positional_embedding"} <= state.keys():
        raise ClipError(
            f"{path} holds no CLIP in OpenAI's or SLIP's layout (first keys: "
            f"{short(sorted(state)[:3])}); "
            "for weights of another open_clip architecture give 'architecture:path'"
        )
    return state


def _load_file(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if any(entry.endswith("/constants.pkl") for entry in _verified_entries(path)):
            with warnings.catch_warnings():
                # Deprecated by PyTorch, yet OpenAI's weights exist in this format alone.
                warnings.simplefilter("ignore")
                return torch.jit.load(path, map_location="cpu").state_dict()
        with torch.serialization.safe_globals([argparse.Namespace]):  # SLIP's hold their flags
            mmap = zipfile.is_zipfile(path)  # what is read is copied into a model anyway
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        reason = str(error).partition("\n")[0][:300]
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            reason = (
                "it pickles objects, such as a whole model, and unpickling them could run any code."
                " Where you trust it, load it yourself, and save its weights alone with "
                "torch.save(model.state_dict(), file)"
            )
        raise ClipError(f"{path} cannot be read as model weights: {reason}") from error


def _verified_entries(path: Path) -> list[str]:
    """Return the names in an archive after comparing its checksums, which PyTorch does not."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ClipError(f"the checksum of {damaged} is another; copy or download it again")
        return archive.namelist()


def _weights(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict that a file holds, wherever it is in it, without "module."."""
    for key in WRAPPERS:
        if isinstance(loaded, dict):
            loaded = loaded.get(key, loaded)
    if not isinstance(loaded, dict):
        raise ClipError(f"{path} holds a {type(loaded).__name__}, not weights by name")
    tensors = ((str(name), value) for name, value in loaded.items() if isinstance(value, Tensor))
    state = {name.removeprefix("module."): tensor for name, tensor in tensors}
    for name, tensor in state.items():
        if not name.endswith("mask") and not _is_finite(tensor):
            raise ClipError(f"{path} holds NaN or infinity in {name[:100]!r}; take another file")
    return state


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(map(torch.isfinite, tensor.aminmax()))  # an eighth of the time of all numbers


def build(state: dict[str, Tensor], precision: str) -> CLIP:
    """Build the model of a state dict in OpenAI's or SLIP's layout, its exact values in fp32."""
    cast = get_cast_dtype(precision)
    if slip.is_slip(state):
        model, state = slip.empty_model(state, cast), slip.rename(state)
    else:
        model = build_model_from_openai_state_dict(dict(state), cast_dtype=cast).float()
    model.load_state_dict({name: state[name] for name in model.state_dict()})  # not via float16
    if precision != "fp32":
        convert_weights_to_lp(model, dtype=cast)
    return model


def _load_open_clip(name: str, precision: str) -> CLIP:
    """Load ``architecture:pretrained``, from open_clip's cache, the network or a file."""
    architecture, _, pretrained = name.partition(":")
    if open_clip.get_model_config(architecture) is None:
        nearest = difflib.get_close_matches(architecture, open_clip.list_models(), n=3)
        raise ClipError(
            f"open_clip has no architecture {architecture!r}; nearest: "
            + (", ".join(nearest) or "none")
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not os.path.isfile(pretrained) and pretrained not in tags:
        raise ClipError(
            f"{pretrained!r} is neither a file nor weights that open_clip knows for "
            f"{architecture}; known: {', '.join(tags) or 'none'}"
        )
    try:
        with _as_open_clip_reads_it(pretrained) as source:
            return open_clip.create_model(architecture, pretrained=source, precision=precision)
    except (OSError, RuntimeError) as error:
        if os.path.isfile(pretrained):
            raise ClipError(f"{pretrained} does not fit {architecture}: {error}") from error
        raise WeightsNotFoundError(
            f"no weights {pretrained!r} for {architecture}: not in the cache, and the download "
            f"failed ({error}). Fetch the file on a machine with a network and name the backbone "
            f"'{architecture}:PATH_OF_THE_FILE'"
        ) from error


@contextmanager
def _as_open_clip_reads_it(pretrained: str) -> Iterator[str]:
    """Yield the name of weights, or of a file with no more than a state dict in it."""
    path = Path(pretrained)
    if not path.is_file() or path.suffix in (".npy", ".npz"):
        yield pretrained
        return
    loaded = _load_file(path)
    state = _weights(loaded, path)
    plain = state.keys() == loaded.keys()
    del loaded  # open_clip reads the file again: hold no copy meanwhile
    if plain:
        del state
        yield pretrained
        return
    with tempfile.TemporaryDirectory() as scratch:
        torch.save(state, Path(scratch, "weights.pt"))
        yield str(Path(scratch, "weights.pt"))
