"""What a packed prompt is, for people and for scripts."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..assignment import STORED
from ..packed_file import PackedTensor
from ..prompt import Prompt

BAR = 30  # characters of the longest bar in a histogram
ROWS = 16  # of a histogram; more centroids are counted together
HALF = torch.finfo(STORED).bits // 8  # bytes of a number in half precision


def describe(prompt: Prompt) -> dict[str, Any]:
    """Return what a packed prompt says and holds, as JSON values."""
    packed = prompt.packed
    quantized = {name: _describe(tensor) for name, tensor in packed.quantized.items()}
    plain = {name: {"shape": list(tensor.shape)} for name, tensor in packed.plain.items()}
    numbers = sum(tensor.numel() for tensor in prompt.tensors.values())
    structured = ("settings", "classnames", "input", "accuracies")
    values = {key: prompt.read_json(key) for key in structured if key in prompt.metadata}
    return {
        "file": prompt.path,
        "file_bytes": os.path.getsize(prompt.path),
        "payload_bytes": packed.payload_bytes,
        "half_precision_bytes": HALF * numbers,
        **prompt.metadata,
        **values,
        "quantized": quantized,
        "plain": plain,
    }


def _describe(tensor: PackedTensor) -> dict[str, Any]:
    size, counts = (
        tensor.indices.numel(),
        torch.bincount(tensor.indices.flatten(), minlength=len(tensor.codebook)),
    )
    return {
        "shape": list(tensor.indices.shape),
        "bits": tensor.bits,
        "bytes": -(-size * tensor.bits // 8) + HALF * len(tensor.codebook),
        "codebook": tensor.codebook.tolist(),
        "use": counts.tolist(),
    }


def as_text(about: dict[str, Any]) -> str:
    """Lay out what :func:`describe` returns; what the file does not say is left out."""
    payload, half = about["payload_bytes"], about["half_precision_bytes"]
    names, accuracies = about.get("classnames", []), about.get("accuracies", {})
    labels = {"dataset": "{}", "shots": "{} shots", "seed": "seed {}", "epoch": "epoch {}"}
    trained = [text.format(about[key]) for key, text in labels.items() if key in about]
    rows = [
        ("file", f"{about['file']}, {about['file_bytes']:,} bytes"),
        ("payload", f"{payload:,} bytes, {half / payload:.1f} times less than in half precision"),
        ("trainer", about.get("trainer")),
        ("backbone", about.get("backbone")),
        ("trained on", ", ".join(trained)),
        ("classes", names and f"{len(names)}: {', '.join(names[:8])}{', ...' * (len(names) > 8)}"),
        ("accuracy", ", ".join(f"{value:.2f}% ({what})" for what, value in accuracies.items())),
        ("words", about.get("ctx_init")),
    ]
    lines = [f"{key:<12}{value}" for key, value in rows if value]
    for name, tensor in about["quantized"].items():
        shape, bits = _shape(tensor), tensor["bits"]
        width = f"{bits} bit{'s' * (bits > 1)}"
        lines += ["", f"{name}: {shape} numbers of {width}, {tensor['bytes']:,} bytes"]
        lines += _histogram(tensor["codebook"], tensor["use"])
    if about["plain"]:
        lines += ["", "in half precision:"]
        lines += [f"  {name}: {_shape(tensor)}" for name, tensor in about["plain"].items()]
    if "nearest_words" in about:
        lines += ["", "nearest words:"]
        lines += [f"  {i}: {', '.join(near)}" for i, near in enumerate(about["nearest_words"], 1)]
    return "\n".join(lines)


def _shape(tensor: dict[str, Any]) -> str:
    return " x ".join(map(str, tensor["shape"]))


def _histogram(codebook: list[float], use: list[int]) -> list[str]:
    """A line for each centroid, or for each few neighbours."""
    size = -(-len(codebook) // ROWS)
    parts = [slice(i, i + size) for i in range(0, len(codebook), size)]
    counts = [sum(use[part]) for part in parts]
    longest = max(counts)
    return [
        f"  {codebook[part][0]:+.5f} {'#' * round(BAR * n / longest):<{BAR}} {n:,}"
        for part, n in zip(parts, counts, strict=True)
    ]
