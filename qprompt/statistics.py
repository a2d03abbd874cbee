"""How weights and their codebooks develop while they train: a row for each tensor and epoch.

What QPrompt (arXiv:2407.10704) observed of prompt weights before it designed the quantizer.
"""

from __future__ import annotations

import csv
import io
import math
import os
from typing import Dict, Iterator, List, Union

import torch
from torch import Tensor, nn

from .clustering import kl_divergence
from .packed_file import write_atomically
from .parametrization import Weight, named_weights
from .quantizer import Quantizer

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
OUTLIER = 3  # deviations from the mean

Row = Dict[str, Union[str, float]]


def weight_statistics(module: nn.Module) -> Iterator[Row]:
    """Yields what there is to say of each trainable parameter of two or more dimensions.

    "parameter"; "mean" and "std" (population); "kurtosis" (3 for a normal distribution) and
    "outliers", the share beyond 3 std; quantiles "q01" to "q99". Of a quantized one also "error",
    the root mean square of quantized minus latent weights; "kl", the divergence from the last fit
    in nats; "entropy" of the indices in bits; "fits"; and "codebook", the centroids with spaces
    between them.
    """
    for weight in named_weights(module):
        if weight.latent.requires_grad and weight.latent.dim() >= 2:
            row: Row = {"parameter": weight.name, **_distribution(weight.latent)}
            if weight.quantizer is not None:
                row.update(_quantization(weight, weight.quantizer))
            yield row


def record_statistics(module: nn.Module, path: str, epoch: int) -> List[Row]:
    """Writes the statistics after a number of epochs into a CSV file, after those of fewer.

    Rows of as many or more epochs are those of a run that was interrupted, and go.

    Returns:
        The rows that are new.
    """
    earlier = []
    if os.path.exists(path):
        with open(path, newline="", encoding="utf-8") as file:
            earlier = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
    rows = list(weight_statistics(module))
    columns = ["epoch", *dict.fromkeys(key for row in rows for key in row)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*earlier, *({"epoch": epoch, **row} for row in rows)])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_atomically(path, text.getvalue().encode())
    return rows


@torch.no_grad()
def _distribution(latent: Tensor) -> Row:
    values = latent.float().flatten().sort().values
    std, mean = torch.std_mean(values, unbiased=False)
    standard = (values - mean) / (std + (std == 0))
    outliers = (standard.abs() > OUTLIER).float().mean()
    numbers = {"mean": mean, "std": std, "kurtosis": standard.pow(4).mean(), "outliers": outliers}
    for share in QUANTILES:
        numbers[f"q{share * 100:02.0f}"] = values[round(share * (len(values) - 1))]
    return {name: float(number) for name, number in numbers.items()}


@torch.no_grad()
def _quantization(weight: Weight, quantizer: Quantizer) -> Row:
    counts, (_, centroids) = quantizer.histogram(weight.latent), quantizer.encode(weight.latent)
    share = counts / counts.sum()
    error = getattr(weight.owner, weight.attribute).float() - weight.latent.float()
    numbers = {
        "error": error.square().mean().sqrt(),
        "kl": kl_divergence(counts, quantizer.counts),
        "entropy": torch.special.entr(share).sum() / math.log(2),
        "fits": quantizer.fits,
    }
    codebook = " ".join(f"{centroid:.6g}" for centroid in centroids.tolist())
    return {**{name: float(number) for name, number in numbers.items()}, "codebook": codebook}
