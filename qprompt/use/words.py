"""The words nearest to context vectors (Zhou et al., 2022, IJCV, section 4.3)."""

from __future__ import annotations

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from ..clip import text_tower
from ..errors import InvalidOptionError


def nearest_words(vectors: Tensor, backbone: CLIP, k: int) -> list[list[tuple[str, float]]]:
    """Return for each vector the k nearest words and their Euclidean distances.

    Args:
        vectors: (n, width).
        backbone: the CLIP that they were learned on.
        k: number of words for each vector.

    Raises:
        InvalidOptionError: vectors of another width, or a k that the vocabulary has not.
    """
    embedding = text_tower(backbone).token_embedding.weight.detach().float()
    if vectors.shape[-1] != embedding.shape[1]:
        raise InvalidOptionError(
            f"the context has {vectors.shape[-1]} numbers a vector and the words of this backbone "
            f"{embedding.shape[1]}: name the backbone that it was trained on (--backbone)"
        )
    if not 1 <= k <= len(embedding):
        raise InvalidOptionError(f"topk is {k}: it is a number of words, 1 to {len(embedding)}")
    decoder = SimpleTokenizer().decoder
    exact = "donot_use_mm_for_euclid_dist"  # products lose small distances
    distances, indices = torch.cdist(vectors.float(), embedding, compute_mode=exact).topk(
        k, largest=False
    )
    return [
        [(decoder[i], distance) for i, distance in zip(near, far, strict=True)]
        for near, far in zip(indices.tolist(), distances.tolist(), strict=True)
    ]
