"""pack and unpack: the trained prompts of a module as a file of a few hundred bytes, and back."""

from __future__ import annotations

import os
from typing import Any, Dict, List

import torch
from torch import Tensor, nn

from .errors import (
    HalfPrecisionOverflowError,
    InvalidOptionError,
    NotQuantizedError,
    PackedMismatchError,
)
from .kmeans import require_clusterable
from .packed_file import PackedFile, PackedTensor, Path
from .quantizer import STORED
from .sites import Site, sites

FULL, INFERENCE = "full", "inference"


@torch.no_grad()
def pack(module: nn.Module, path: Path, form: str = FULL, **metadata: object) -> int:
    """Writes the quantized and the other trainable parameters of `module` to a .safetensors file.

    The values of quantized parameters are stored exactly, and so are the other trainable
    parameters (biases), in half precision. An existing file is replaced in one step.

    A module may have a smaller form, enough for inference: `inference_state()` returns its tensors
    by name, `to_inference_()` gives a module that structure, with parameters of those names, and
    `in_inference_form` says whether it has it.
    Quantized parameters among them are stored exactly as in the full form; derived tensors are
    rounded to half precision, a relative error of at most 2^-11 (10^-8 absolute for numbers below
    10^-5). For other modules both forms hold the same.

    Args:
        module: a module with quantized parameters; for inference it may have none.
        path: of the file; its folder must exist.
        form: "full" or "inference".
        metadata: facts to keep with it, stored as strings.

    Returns:
        Bytes of the payload (the file also holds a header).

    Raises:
        NotQuantizedError, InvalidOptionError: nothing to pack, an unknown form, or a reserved
            metadata name.
        NonFiniteWeightsError, HalfPrecisionOverflowError: a value is not finite, or not in half
            precision.
        OSError: the file cannot be written.
    """
    quantized, plain = {}, {}
    for site in _stored(module, form):
        if site.quantizer is None:
            plain[site.name] = _finite(site.weight.to(STORED), site.name)
        else:
            require_clusterable(site.weight, f"parameter '{site.name}'")
            indices, codebook = site.quantizer.encode(site.weight)
            codebook = _finite(codebook, site.name)
            quantized[site.name] = PackedTensor(indices, codebook, site.weight.dtype)
    texts = {name: str(value) for name, value in metadata.items()}
    if form == INFERENCE:
        texts["form"] = form
    return PackedFile(quantized, plain, texts).write(path)


def payload_bytes(module: nn.Module, form: str = FULL) -> int:
    """What `pack` would return, without a file: packed indices, codebooks, other tensors."""
    stored_bits = torch.finfo(STORED).bits
    total = 0
    for site in _stored(module, form):
        if site.quantizer is None:
            total += site.weight.numel() * stored_bits // 8
        else:
            total += -(-site.weight.numel() * site.quantizer.bits // 8)
            total += len(site.quantizer.codebook) * stored_bits // 8
    return total


def unpack(path: Path) -> Dict[str, Tensor]:
    """Reads a packed file: plain parameter names and dequantized tensors on the CPU.

    Quantized parameters have the dtype and exactly the values of the packed module; the others
    come in half precision.

    Raises:
        PackedFileError: truncated, foreign, inconsistent or newer file.
        OSError: the file cannot be read.
    """
    packed = PackedFile.read(path)
    return {**{name: item.value for name, item in packed.quantized.items()}, **packed.plain}


def read_metadata(path: Path) -> Dict[str, str]:
    """The strings that were given to `pack`; errors as for `unpack`."""
    return PackedFile.read(path).metadata


@torch.no_grad()
def load_packed_(module: nn.Module, path: Path) -> None:
    """Loads a packed file into a plain or an equally quantized module, which then has its values.

    In a quantized module the latent weights become the file's values, and training can go on from
    there. An inference form turns the module into that form, in which it stays.

    Raises:
        PackedMismatchError: listing missing and unexpected names and differing shapes and bits;
            the module is then unchanged.
        PackedFileError, OSError: as for `unpack`.
    """
    packed = PackedFile.read(path)
    values = {**{name: item.value for name, item in packed.quantized.items()}, **packed.plain}
    form = packed.metadata.get("form", FULL)
    targets = _targets(module, form)
    problems = [f"unexpected {name}" for name in values if name not in targets]
    for site in targets.values():
        problems += _problems(site, values, packed.quantized)
    if problems:
        raise PackedMismatchError(
            f"'{os.fspath(path)}' does not fit {type(module).__name__}: {'; '.join(problems)}"
        )
    convert: Any = getattr(module, "to_inference_", None)
    if form == INFERENCE and convert is not None:
        convert()
        targets = _targets(module, FULL)
    for name, value in values.items():
        site = targets[name]
        site.weight.copy_(value)
        if site.quantizer is not None:
            site.quantizer.fit_(site.weight)  # which maps the file's values to themselves


def _problems(
    site: Site, values: Dict[str, Tensor], quantized: Dict[str, PackedTensor]
) -> List[str]:
    if site.name not in values:
        needed = site.quantizer is not None or site.weight.requires_grad
        return [f"missing {site.name}"] if needed else []
    here, there = tuple(site.weight.shape), tuple(values[site.name].shape)
    if here != there:
        return [f"{site.name} has shape {there} in the file and {here} here"]
    if site.quantizer is not None:
        bits = quantized[site.name].bits if site.name in quantized else torch.finfo(STORED).bits
        if bits != site.quantizer.bits:
            return [f"{site.name} has {bits} bits in the file and {site.quantizer.bits} here"]
    return []


def _stored(module: nn.Module, form: str) -> List[Site]:
    if form not in (FULL, INFERENCE):
        raise InvalidOptionError(f"form must be {FULL!r} or {INFERENCE!r}, got {form!r}")
    found = _targets(module, form).values()
    stored = [site for site in found if site.quantizer is not None or site.weight.requires_grad]
    if form == FULL and all(site.quantizer is None for site in stored):
        raise NotQuantizedError(
            f"{type(module).__name__} has no quantized parameter; call quantize_ first"
        )
    return stored


def _targets(module: Any, form: str) -> Dict[str, Site]:
    """Where the tensors of a form come from or go to, by name."""
    found = {site.name: site for site in sites(module)}
    if form == FULL or not hasattr(module, "inference_state"):
        return found
    quantized = {name for name, site in found.items() if site.quantizer is not None}
    return {
        name: found[name] if name in quantized else Site(name, module, name, nn.Parameter(value))
        for name, value in module.inference_state().items()
    }


def _finite(tensor: Tensor, name: str) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise HalfPrecisionOverflowError(
            f"parameter '{name}' is not finite in half precision and cannot be packed"
        )
    return tensor
