"""The format of packed prompts: what a file holds, to bytes and back.

It is a .safetensors file of bit-packed indices, codebooks and strings. A quantized parameter `ctx`
is stored as `ctx.indices`, b bits a number, and `ctx.codebook`, 2^b half-precision centroids:
b N + 16 * 2^b bits (arXiv:2407.10704). Every other trainable parameter is stored in half precision
under its own name. Among the strings are records that say how to read the indices, and the digest
of the file. Nothing of a file is used before all of it agrees.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from reprlib import repr as short
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple, Union

import numpy as np
import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save as serialize
from torch import Tensor

from .errors import InvalidOptionError, InvalidWeightsError, PackedFileError
from .quantizer import MAX_BITS

FORMAT = "qprompt"
VERSION = 2  # files of version 1 have no digest
DIGEST = "sha256"
BLANK = "0" * 64  # stands where the digest will while it is taken
LIMIT = 2**27  # bytes of a file, and quantized numbers in it: half a gigabyte as float32
MAX_DIMENSIONS = 16
STORED_AS = {"U8": np.uint8, "F16": np.float16}  # by safetensors' names
WEIGHTS = ("float16", "bfloat16", "float32", "float64")

Path = Union[str, "os.PathLike[str]"]
Entries = Dict[str, Dict[str, Any]]


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

    @property
    def payload_bytes(self) -> int:
        """Bytes of a file but for its header."""
        return len(split(self.encode())[1])

    @classmethod
    def read(cls, path: Path) -> PackedFile:
        """Raises PackedFileError for a damaged, foreign, inconsistent or newer file, OSError."""
        name = os.fspath(path)
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise PackedFileError(
                f"'{name}' is not a file; give one that qprompt.pack wrote, "
                "such as prompt_learner/prompt.safetensors in the folder of a run"
            )
        with open(name, "rb") as file:
            content = file.read(LIMIT + 1)
        try:
            return cls.decode(content)
        except PackedFileError as error:
            raise PackedFileError(f"'{name}' {error}") from None
        except (SafetensorError, RecursionError, ValueError) as error:
            reason = " ".join(str(error)[:300].split())
            raise PackedFileError(
                f"'{name}' is no packed file, or a damaged one ({reason}); copy or pack it again"
            ) from error

    def write(self, path: Path) -> int:
        """Writes the file in one step, replacing an old one; returns bytes of the payload."""
        content = self.encode()
        try:
            self.decode(content)
        except ValueError as error:
            raise InvalidWeightsError(f"these weights cannot be packed: {error}") from error
        write_atomically(path, content)
        return len(split(content)[1])

    def encode(self) -> bytes:
        """Bytes of a file of the current version; equal contents give equal bytes."""
        reserved = {"format": FORMAT, "format_version": str(VERSION), DIGEST: BLANK}
        taken = sorted({*reserved, "quantized"} & self.metadata.keys())
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
        return _seal(serialize(tensors, {**self.metadata, **reserved}))

    @classmethod
    def decode(cls, content: bytes) -> PackedFile:
        """Inverse of `encode`; SafetensorError, ValueError: `content` contradicts itself."""
        entries, metadata = _read_header(content)
        records = _validate(content, entries, metadata)
        tensors = {}
        for name, entry in entries.items():
            array = np.ndarray(entry["shape"], STORED_AS[entry["dtype"]], entry["data"])
            tensors[name] = torch.from_numpy(array)
            if not torch.isfinite(tensors[name]).all():
                raise ValueError(f"{name!r} holds NaN or infinity")
        quantized = {}
        for name, record in records.items():
            packed, codebook = tensors.pop(name + ".indices"), tensors.pop(name + ".codebook")
            indices = unpack_bits(packed, record["bits"], record["shape"])
            quantized[name] = PackedTensor(indices, codebook, getattr(torch, record["dtype"]))
        return cls(quantized, tensors, metadata)


def _read_header(content: bytes) -> Tuple[Entries, Dict[str, str]]:
    """Tensors (dtype, shape, data) and metadata of a safetensors file, whose length they fit."""
    if len(content) > LIMIT:
        raise ValueError(f"it has more than {LIMIT} bytes")
    entries = dict(deserialize(content))  # type: ignore[no-untyped-call]
    header = json.loads(split(content)[0], object_pairs_hook=_unique)
    return entries, header.get("__metadata__") or {}


def _validate(content: bytes, entries: Entries, metadata: Dict[str, str]) -> Entries:
    """Returns the records of quantized tensors, and takes what is ours out of the metadata.

    Raises:
        PackedFileError: a foreign or newer file.
        ValueError: digest, records and stored tensors do not agree.
    """
    format, version = metadata.pop("format", None), metadata.pop("format_version", None)
    digest, text = metadata.pop(DIGEST, None), metadata.pop("quantized", "null")
    if format != FORMAT:
        raise PackedFileError(
            f"says format {short(format)}, expected {FORMAT!r}; give a file that qprompt.pack wrote"
        )
    if version not in [str(known) for known in range(1, VERSION + 1)]:
        raise PackedFileError(
            f"has format version {short(version)}, this release reads those up to '{VERSION}'; "
            "install a newer release of QPrompt"
        )
    if (version != "1" or digest is not None) and digest != _digest(content, str(digest)):
        raise ValueError(f"its {DIGEST} is not that of its bytes")
    records: Entries = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(records, dict):
        raise ValueError("it has no records of quantized tensors")
    expected: Dict[str, Tuple[str, List[int]]] = {}
    numbers = 0
    for name, record in records.items():
        if not _is_record(record):
            raise ValueError(f"the record of {name!r} is {record}")
        number = math.prod(record["shape"])
        numbers += number
        expected[name + ".indices"] = "U8", [-(-number * record["bits"] // 8)]
        expected[name + ".codebook"] = "F16", [2 ** record["bits"]]
    if numbers > LIMIT:
        raise ValueError(f"it has more than {LIMIT} quantized numbers")
    for name, entry in entries.items():
        stored = entry["dtype"], entry["shape"]
        if name in records or stored != expected.pop(name, ("F16", entry["shape"])):
            raise ValueError(f"the records do not tell of {name!r}, {stored[0]} {stored[1]}")
    if expected:
        raise ValueError(f"{min(expected)!r} is missing")
    return records


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or record.keys() != {"bits", "shape", "dtype"}:
        return False
    bits, shape = record["bits"], record["shape"]
    return (
        type(bits) is int
        and 1 <= bits <= MAX_BITS
        and isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and 1 <= size <= LIMIT for size in shape)
        and record["dtype"] in WEIGHTS
    )


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError(f"a name stands twice among {[name for name, _ in pairs]}")
    return names


def _seal(content: bytes) -> bytes:
    """Sorts the metadata of a safetensors file by name, and puts the digest in."""
    text, payload = split(content)
    header = json.loads(text)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    content = len(text).to_bytes(8, "little") + text + payload
    return content.replace(_item(BLANK), _item(_digest(content, BLANK)), 1)


def _digest(content: bytes, recorded: str) -> str:
    """SHA-256 of a file in which zeros stand for the digest that it records."""
    return hashlib.sha256(content.replace(_item(recorded), _item(BLANK), 1)).hexdigest()


def _item(digest: str) -> bytes:
    return f'"{DIGEST}":"{digest}"'.encode()


def split(content: bytes) -> Tuple[bytes, bytes]:
    """Header and payload of a safetensors file."""
    start = 8 + int.from_bytes(content[:8], "little")
    return content[8:start], content[start:]


def write_atomically(path: Union[str, Path], content: bytes) -> None:
    """Writes a file as a whole or not at all."""
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
