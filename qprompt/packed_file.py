"""The packed file: a .safetensors file of bit-packed indices, codebooks and strings.

A quantized parameter `ctx` is stored as `ctx.indices`, b bits a number, and `ctx.codebook`, 2^b
half-precision centroids: b N + 16 * 2^b bits (arXiv:2407.10704). Every other trainable parameter
is stored in half precision under its own name.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, NamedTuple, Sequence, Tuple, Union

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from .errors import InvalidOptionError, PackedFileError
from .quantizer import MAX_BITS, STORED

FORMAT = "qprompt"
FORMAT_VERSION = 1

Path = Union[str, "os.PathLike[str]"]


def pack_bits(indices: Tensor, bits: int) -> Tensor:
    """Packs indices below 2^bits, any shape, into ceil(N * bits / 8) bytes, lowest bit first."""
    flat = indices.reshape(-1).cpu().numpy().astype(np.uint8)
    rows = np.unpackbits(flat[:, None], axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(rows.reshape(-1), bitorder="little"))


def unpack_bits(packed: Tensor, bits: int, shape: Sequence[int]) -> Tensor:
    """Inverse of `pack_bits`: int64 indices of the given shape."""
    number = int(np.prod(shape, dtype=np.int64))
    rows = np.unpackbits(packed.numpy(), count=number * bits, bitorder="little")
    flat = np.packbits(rows.reshape(number, bits), axis=1, bitorder="little")
    return torch.from_numpy(flat.reshape(shape).astype(np.int64))


class PackedTensor(NamedTuple):
    """A quantized tensor: indices of its shape, 2^bits half-precision centroids, its dtype."""

    indices: Tensor
    codebook: Tensor
    dtype: torch.dtype

    @property
    def bits(self) -> int:
        return (len(self.codebook) - 1).bit_length()

    @property
    def value(self) -> Tensor:
        return self.codebook.to(self.dtype)[self.indices]


class PackedFile(NamedTuple):
    """Contents of a packed file: quantized tensors, other tensors in half precision, strings."""

    quantized: Dict[str, PackedTensor]
    plain: Dict[str, Tensor]
    metadata: Dict[str, str]

    @classmethod
    def read(cls, path: Path) -> PackedFile:
        """Raises PackedFileError for a truncated, foreign, inconsistent or newer file, OSError."""
        name = os.fspath(path)
        with open(name, "rb"):  # a missing or unreadable file is an OSError that names it
            pass
        try:
            with safe_open(name, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise PackedFileError(
                f"'{name}' is not a complete packed file ({error}); copy or pack it again"
            ) from error
        found, version = metadata.pop("format", None), metadata.pop("format_version", None)
        if found != FORMAT:
            raise PackedFileError(
                f"'{name}' says format {found!r}, expected {FORMAT!r}; "
                "give a file that qprompt.pack wrote"
            )
        if version != str(FORMAT_VERSION):
            raise PackedFileError(
                f"'{name}' has format version {version!r}, this release reads "
                f"'{FORMAT_VERSION}'; install a newer release of QPrompt"
            )
        try:
            records = json.loads(metadata.pop("quantized"))
            quantized = {key: _take(tensors, key, **record) for key, record in records.items()}
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise PackedFileError(
                f"'{name}' contradicts itself ({error!r}); copy or pack it again"
            ) from error
        return cls(quantized, tensors, metadata)

    def write(self, path: Path) -> int:
        """Writes the file in one step, replacing an old one; returns bytes of the payload."""
        reserved = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "quantized": ""}
        taken = sorted(reserved.keys() & self.metadata.keys())
        if taken:
            raise InvalidOptionError(f"metadata names {', '.join(taken)} are reserved; rename them")
        tensors, records = dict(self.plain), {}
        for name, tensor in self.quantized.items():
            tensors[name + ".codebook"] = tensor.codebook
            tensors[name + ".indices"] = pack_bits(tensor.indices, tensor.bits)
            dtype = str(tensor.dtype).split(".")[1]
            records[name] = {"bits": tensor.bits, "shape": [*tensor.indices.shape], "dtype": dtype}
        reserved["quantized"] = json.dumps(records, separators=(",", ":"))
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        _replace(path, serialize(tensors, {**self.metadata, **reserved}))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _take(
    tensors: Dict[str, Tensor], name: str, bits: int, shape: Tuple[int, ...], dtype: str
) -> PackedTensor:
    packed, codebook = tensors.pop(name + ".indices"), tensors.pop(name + ".codebook")
    kind: Any = getattr(torch, dtype)
    size = -(-int(np.prod(shape, dtype=np.int64)) * bits // 8)
    fits = 1 <= bits <= MAX_BITS and codebook.shape == (2**bits,) and packed.shape == (size,)
    if not (fits and codebook.dtype == STORED and isinstance(kind, torch.dtype)):
        raise ValueError(
            f"{name}: indices {tuple(packed.shape)} and codebook {tuple(codebook.shape)} "
            f"for shape {shape}, {bits} bits, {dtype}"
        )
    return PackedTensor(unpack_bits(packed, bits, shape), codebook, kind)


def _replace(path: Path, content: bytes) -> None:
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
