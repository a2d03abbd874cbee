"""Packed prompts: the trained prompts of a module as a file of a few hundred bytes, and back."""

from __future__ import annotations

import copy
import os
import warnings
from typing import Dict, List

import torch
from torch import Tensor, nn

from .assignment import STORED
from .errors import InvalidWeightsError, NoParameterError, PackedMismatchError
from .kmeans import require_clusterable
from .packed_file import PackedFile, PackedTensor, Path
from .parametrization import Weight, named_weights


@torch.no_grad()
def pack(module: nn.Module, path: Path, **metadata: object) -> int:
    """Writes the quantized and the other trainable parameters of `module` to a .safetensors file.

    The values of quantized parameters are stored exactly, and so are the other trainable
    parameters (biases), in half precision. An existing file is replaced in one step.

    Args:
        module: a module with quantized parameters.
        path: of the file; its folder must exist.
        metadata: what else the file says, stored as strings.

    Returns:
        Bytes of the payload (the file also holds a header).

    Raises:
        NoParameterError, InvalidOptionError: nothing is quantized, or a reserved metadata name.
        InvalidWeightsError: a value is not finite, or not in half precision.
        OSError: the file cannot be written.

    Warns:
        UserWarning: half precision turns all values of a parameter into zeros.
    """
    quantized, plain = {}, {}
    for weight in _stored(module):
        if weight.quantizer is None:
            plain[weight.name] = _checked(weight.latent.to(STORED), weight)
        else:
            require_clusterable(weight.latent, f"parameter '{weight.name}'")
            indices, codebook = weight.quantizer.encode(weight.latent)
            codebook = _checked(codebook, weight)
            quantized[weight.name] = PackedTensor(indices, codebook, weight.dtype)
    texts = {name: str(value) for name, value in metadata.items()}
    return PackedFile(quantized, plain, texts).write(path)


def payload_bytes(module: nn.Module) -> int:
    """What `pack` would return, without a file: packed indices, codebooks, other tensors."""
    stored_bits = torch.finfo(STORED).bits
    total = 0
    for weight in _stored(module):
        if weight.quantizer is None:
            total += weight.latent.numel() * stored_bits // 8
        else:
            total += -(-weight.latent.numel() * weight.quantizer.bits // 8)
            total += len(weight.quantizer.codebook) * stored_bits // 8
    return total


def unpack(path: Path) -> Dict[str, Tensor]:
    """Reads a packed file: plain parameter names and dequantized tensors on the CPU.

    Quantized parameters have the dtype and exactly the values of the packed module; the others
    come in half precision.

    Raises:
        PackedFileError: damaged, foreign, inconsistent or newer file.
        OSError: the file cannot be read.
    """
    return PackedFile.read(path).values


def read_metadata(path: Path) -> Dict[str, str]:
    """The strings that were given to `pack`; errors as for `unpack`."""
    return PackedFile.read(path).metadata


@torch.no_grad()
def load_packed_(module: nn.Module, path: Path) -> None:
    """Loads a packed file into a plain or an equally quantized module, which then has its values.

    In a quantized module the latent weights become the file's values, and training can go on from
    there. An error leaves the module unchanged.

    Raises:
        PackedMismatchError: listing missing and unexpected names and differing shapes and bits.
        InvalidWeightsError: the dtype of the module cannot hold a value.
        PackedFileError, OSError: as for `unpack`.
    """
    packed = PackedFile.read(path)
    weights, values = {weight.name: weight for weight in named_weights(module)}, packed.values
    problems = [f"unexpected {name}" for name in values if name not in weights]
    for weight in weights.values():
        problems += _problems(weight, packed)
    if problems:
        raise PackedMismatchError(
            f"'{os.fspath(path)}' does not fit {type(module).__name__}: {'; '.join(problems)}"
        )
    loaded = []
    for name, value in values.items():
        weight = weights[name]
        latent, quantizer = value.to(weight.latent), copy.deepcopy(weight.quantizer)
        if quantizer is not None:
            quantizer.fit_(latent)  # which maps the file's values to themselves
        loaded.append((weight, latent, quantizer))
    for weight, latent, quantizer in loaded:
        weight.latent.copy_(latent)
        if weight.quantizer is not None and quantizer is not None:
            weight.quantizer.load_state_dict(quantizer.state_dict())


def _problems(weight: Weight, packed: PackedFile) -> List[str]:
    name, values = weight.name, packed.values
    if name not in values:
        return [f"missing {name}"] if weight.is_stored else []
    here, there = tuple(weight.latent.shape), tuple(values[name].shape)
    if here != there:
        return [f"{name} has shape {there} in the file and {here} here"]
    if weight.quantizer is not None:
        quantized = packed.quantized
        bits = quantized[name].bits if name in quantized else torch.finfo(STORED).bits
        if bits != weight.quantizer.bits:
            return [f"{name} has {bits} bits in the file and {weight.quantizer.bits} here"]
    return []


def _stored(module: nn.Module) -> List[Weight]:
    weights = [weight for weight in named_weights(module) if weight.is_stored]
    if all(weight.quantizer is None for weight in weights):
        raise NoParameterError(
            f"{type(module).__name__} has no quantized parameter; call quantize_ first"
        )
    return weights


def _checked(stored: Tensor, weight: Weight) -> Tensor:
    if not torch.isfinite(stored).all():
        raise InvalidWeightsError(
            f"parameter '{weight.name}' is not finite in half precision and cannot be packed"
        )
    if weight.latent.any() and not stored.any():
        warnings.warn(
            f"parameter '{weight.name}', at most {float(weight.latent.abs().max()):.1g} in size, "
            "is all zeros in half precision and in the file; give it a larger scale",
            stacklevel=3,
        )
    return stored
