"""Packed prompts: the trained prompts of a module as a file of a few hundred bytes, and back.

The file is a .safetensors file of bit-packed indices, codebooks and strings. A quantized parameter
`ctx` is stored as `ctx.indices`, b bits a number, and `ctx.codebook`, 2^b half-precision centroids:
b N + 16 * 2^b bits (arXiv:2407.10704). Every other trainable parameter is stored in half precision
under its own name.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple, Union

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from .errors import (
    InvalidOptionError,
    InvalidWeightsError,
    NoParameterError,
    PackedFileError,
    PackedMismatchError,
)
from .kmeans import require_clusterable
from .parametrization import Weight, named_weights
from .quantizer import MAX_BITS, STORED

FORMAT = "qprompt"
FORMAT_VERSION = 1

Path = Union[str, "os.PathLike[str]"]


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
    """
    quantized, plain = {}, {}
    for weight in _stored(module):
        if weight.quantizer is None:
            plain[weight.name] = _finite(weight.latent.to(STORED), weight.name)
        else:
            require_clusterable(weight.latent, f"parameter '{weight.name}'")
            indices, codebook = weight.quantizer.encode(weight.latent)
            codebook = _finite(codebook, weight.name)
            quantized[weight.name] = PackedTensor(indices, codebook, weight.latent.dtype)
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
        PackedFileError: truncated, foreign, inconsistent or newer file.
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
    there.

    Raises:
        PackedMismatchError: listing missing and unexpected names and differing shapes and bits;
            the module is then unchanged.
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
    for name, value in values.items():
        weight = weights[name]
        weight.latent.copy_(value)
        if weight.quantizer is not None:
            weight.quantizer.fit_(weight.latent)  # which maps the file's values to themselves


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


def _finite(tensor: Tensor, name: str) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise InvalidWeightsError(
            f"parameter '{name}' is not finite in half precision and cannot be packed"
        )
    return tensor


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

    @property
    def values(self) -> Dict[str, Tensor]:
        """All tensors by name, those of quantized parameters dequantized."""
        return {**{name: tensor.value for name, tensor in self.quantized.items()}, **self.plain}

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
        format, version = metadata.pop("format", None), metadata.pop("format_version", None)
        if format != FORMAT:
            raise PackedFileError(
                f"'{name}' says format {format!r}, expected {FORMAT!r}; "
                "give a file that qprompt.pack wrote"
            )
        if version != str(FORMAT_VERSION):
            raise PackedFileError(
                f"'{name}' has format version {version!r}, this release reads "
                f"'{FORMAT_VERSION}'; install a newer release of QPrompt"
            )
        try:
            records = json.loads(metadata.pop("quantized"))
            quantized = {
                key: _pop_quantized(tensors, key, **record) for key, record in records.items()
            }
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
        _write_atomically(path, _sorted(serialize(tensors, {**self.metadata, **reserved})))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _pop_quantized(
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


def _sorted(content: bytes) -> bytes:
    """A safetensors file whose header lists its metadata by name: equal prompts, equal bytes."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[start:]


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # that of a full disk names no file
        advice = f"{len(content):,} bytes are needed: free space there or choose a writable folder"
        raise OSError(error.errno, f"{error.strerror}, {advice}", os.fspath(path)) from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


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
