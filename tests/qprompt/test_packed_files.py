"""Files of the first release, of others, and damaged ones."""

from __future__ import annotations

import base64
import copy
import json
import os
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from qprompt import (
    PackedFileError,
    load_packed_,
    pack,
    quantize_,
    read_metadata,
    unpack,
)

# `ctx` = arange(6).reshape(2, 3) / 8 - 0.25 with 1 bit, packed by the first release
VERSION_1 = """
GAEAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJxcHJvbXB0IiwiZm9ybWF0X3ZlcnNpb24iOiIxIiwicXVh
bnRpemVkIjoie1wiY3R4XCI6e1wiYml0c1wiOjEsXCJzaGFwZVwiOlsyLDNdLFwiZHR5cGVcIjpcImZsb2F0MzJcIn19
IiwidHJhaW5lciI6IlFDb09wIn0sImN0eC5jb2RlYm9vayI6eyJkdHlwZSI6IkYxNiIsInNoYXBlIjpbMl0sImRhdGFf
b2Zmc2V0cyI6WzAsNF19LCJjdHguaW5kaWNlcyI6eyJkdHlwZSI6IlU4Iiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRz
IjpbNCw1XX19ICAgALAANDg=
"""


@pytest.fixture
def target():
    """A module whose parameter ``ctx`` is (4, 64)."""
    module = nn.Module()
    module.ctx = nn.Parameter(torch.randn(4, 64))
    return module


@pytest.fixture
def packed_ctx(target, tmp_path):
    """The file of that parameter with 3 bits."""
    path = tmp_path / "prompt.safetensors"
    pack(quantize_(copy.deepcopy(target), 3), path)
    return path


def test_file_of_the_first_release(tmp_path):
    """It had no digest."""
    (tmp_path / "prompt").write_bytes(base64.b64decode(VERSION_1))
    low, high = -0.125, 0.25
    assert unpack(tmp_path / "prompt")["ctx"].tolist() == [[low] * 3, [high] * 3]
    assert read_metadata(tmp_path / "prompt") == {"trainer": "QCoOp"}


def rewritten(path, tensors=(), **metadata):
    """The file as version 1, without a digest, with other items; None drops one."""
    with safe_open(path, framework="pt") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        merged = {**file.metadata(), "format_version": "1", "sha256": None, **metadata}
    stored.update(tensors)
    stored = {key: value for key, value in stored.items() if value is not None}
    save_file(stored, path, {key: value for key, value in merged.items() if value is not None})
    return path


@pytest.mark.parametrize(
    "metadata, message",
    [
        ({"format": "lora"}, "says format 'lora', expected 'qprompt'"),
        ({"format": None}, "says format None"),
        ({"format_version": "3"}, "format version '3', this .* up to '2'; install a newer"),
        ({"format_version": None}, "format version None"),
        ({"format_version": "2"}, "its sha256"),
        ({"sha256": "0" * 64}, "its sha256"),
        ({"quantized": None}, "no records"),
        ({"quantized": "{"}, "damaged"),
        ({"quantized": "[" * 100_000}, "damaged"),
        ({"quantized": "[]"}, "no records"),
        ({"quantized": "{}"}, "do not tell of 'ctx.indices'"),
        ({"quantized": '{"ctx":{"bits":3,"bits":3,"shape":[4,64],"dtype":"float32"}}'}, "twice"),
    ],
)
def test_foreign_newer_and_inconsistent_files(packed_ctx, metadata, message):
    for read in (unpack, read_metadata):
        with pytest.raises(PackedFileError, match=f"'{packed_ctx}' .*{message}"):
            read(rewritten(packed_ctx, **metadata))


@pytest.mark.parametrize(
    "field, value",
    [
        *(("bits", value) for value in (0, 2, 9, True, "3", 3.0, None)),
        *(("shape", value) for value in ([4, 65], [-4, -64], [4.0, 64], [2**64], "4, 64", 256)),
        ("shape", [1] * 20 + [4, 64]),
        *(("dtype", value) for value in ("int8", "bool", "complex64", "float8_e4m3fn", "uint1")),
        *(("dtype", value) for value in ("quint8", "float4_e2m1fn_x2", "nn", "float33", 32, [])),
        ("scale", 1),
    ],
)
def test_records_that_no_file_has(packed_ctx, field, value):
    record = {"bits": 3, "shape": [4, 64], "dtype": "float32", field: value}
    path = rewritten(packed_ctx, quantized=json.dumps({"ctx": record}))
    with pytest.raises(PackedFileError, match=f"{path.name}.*'ctx"):
        unpack(path)


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"ctx": torch.ones(4, 64).half()}, "do not tell of 'ctx'"),  # which would shadow it
        ({"other": torch.ones(3, dtype=torch.uint8)}, "do not tell of 'other'"),
        ({"other": torch.ones(3)}, "do not tell of 'other'"),
        ({"other": torch.ones(3, dtype=torch.complex64)}, "do not tell of 'other'"),
        ({"other": torch.tensor([1, torch.inf]).half()}, "'other' holds NaN or infinity"),
        ({"ctx.codebook": torch.full((8,), torch.nan).half()}, "'ctx.codebook' holds NaN"),
        ({"ctx.codebook": torch.ones(8)}, "do not tell of 'ctx.codebook'"),
        ({"ctx.codebook": None}, "'ctx.codebook' is missing"),
        ({"ctx.indices": torch.ones(96, dtype=torch.int8)}, "do not tell of 'ctx.indices'"),
        ({"ctx.indices": torch.ones(1, 96, dtype=torch.uint8)}, "do not tell of 'ctx.indices'"),
    ],
)
def test_tensors_that_no_file_has(target, packed_ctx, tensors, message):
    before = target.ctx.clone()
    with pytest.raises(PackedFileError, match=message):
        load_packed_(target, rewritten(packed_ctx, tensors))
    assert torch.equal(target.ctx, before)


def test_sparse_file_that_would_expand_to_gigabytes(packed_ctx):
    with open(rewritten(packed_ctx), "ab") as file:
        file.truncate(2**33)
    with pytest.raises(PackedFileError, match="more than 134217728 bytes"):
        unpack(packed_ctx)
    size = 2**24 + 1  # bytes, of one bit for each number
    record = {"bits": 1, "shape": [2, 4 * size], "dtype": "float32"}
    metadata = {"format": "qprompt", "format_version": "1", "quantized": json.dumps({"c": record})}
    tensors = {
        "c.indices": torch.zeros(size, dtype=torch.uint8),
        "c.codebook": torch.ones(2).half(),
    }
    save_file(tensors, packed_ctx, metadata)
    with pytest.raises(PackedFileError, match="more than 134217728 quantized numbers"):
        unpack(packed_ctx)


def test_not_a_packed_file(tmp_path):
    path = tmp_path / "model.pth.tar"
    for content in (b"", b"PK\x03\x04" * 100, struct.pack("<Q", 2**62) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(PackedFileError, match="model.pth.tar"):
            unpack(path)
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        unpack(tmp_path / "none.safetensors")
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(PackedFileError, match=f"'{name}' is not a file"):
            unpack(name)
