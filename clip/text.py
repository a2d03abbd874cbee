"""Text encoding for prompts that are given as tensors instead of words.

CLIP's text transformer is causal and its feature is read at the end-of-text token (Radford et al.,
2021, section 2.4). What stands after that token cannot matter, so encoding stops at the last
end-of-text position of the batch; the result is that of all 77 positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clip.layers import run_layers
from clip.tokenizer import VOCABULARY_SIZE


class UnsupportedBackboneError(ValueError):
    """The model's text tower cannot take learned prompts the way CLIP's does."""


def text_tower(model: nn.Module) -> nn.Module:
    """Return the part of an open_clip model that holds its text tower.

    Raises:
        UnsupportedBackboneError: the tower is not causal, is not read at the end-of-text token, or
            has another vocabulary than CLIP's.
    """
    tower = getattr(model, "text", model)
    mask = getattr(tower, "attn_mask", None)
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    embedding = getattr(tower, "token_embedding", None)
    if (
        mask is None
        or pool not in ("argmax", "eos")
        or getattr(tower, "cls_emb", None) is not None
        or getattr(embedding, "num_embeddings", None) != VOCABULARY_SIZE
    ):
        raise UnsupportedBackboneError(
            f"{type(model).__name__} has a text tower that learned prompts cannot use: it needs "
            "causal attention, a feature read at the end-of-text token and CLIP's vocabulary of "
            f"{VOCABULARY_SIZE} tokens; choose a CLIP architecture such as ViT-B-16"
        )
    return tower


def compute_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype of the model's matrix products, which images and prompts must have."""
    return text_tower(model).transformer.get_cast_dtype()


def embed_tokens(model: nn.Module, tokens: Tensor) -> Tensor:
    """Look up token embeddings, without positions.

    Args:
        model: an open_clip CLIP model.
        tokens: (n, length) token ids.

    Returns:
        (n, length, width) in the text transformer's dtype.
    """
    return text_tower(model).token_embedding(tokens).to(compute_dtype(model))


def embed_dim(model: nn.Module) -> int:
    """Return the number of features that texts and images are encoded into."""
    projection = text_tower(model).text_projection
    return projection.out_features if isinstance(projection, nn.Module) else projection.shape[1]


def encode_prompts(
    model: nn.Module, prompts: Tensor, eot: Tensor, deep: Sequence[Tensor] = ()
) -> Tensor:
    """Encode prompts given as embeddings into features, not normalised.

    Args:
        model: an open_clip CLIP model.
        prompts: (n, length, width) embeddings without positions, length > max(eot). Positions
            after each row's end-of-text token are ignored.
        eot: (n,) position of the end-of-text token in each row.
        deep: (n_ctx, width) tensors, which replace the tokens after the first one before layer
            1, 2, ..., without positions (Khattak et al., 2023, section 3.2.1).

    Returns:
        (n, embed_dim) features in the text transformer's dtype; gradients flow into ``prompts``
        and ``deep``.
    """
    tower = text_tower(model)
    dtype = compute_dtype(model)
    length = int(eot.max()) + 1
    x = prompts[:, :length].to(dtype) + tower.positional_embedding[:length].to(dtype)
    x = run_layers(tower.transformer, x, deep, 1, tower.attn_mask[:length, :length])
    x = tower.ln_final(x)[torch.arange(len(x), device=x.device), eot]
    projection = tower.text_projection
    return projection(x) if isinstance(projection, nn.Module) else x @ projection


def encode_text(model: nn.Module, tokens: Tensor) -> Tensor:
    """Encode token ids into features, not normalised.

    Args:
        model: an open_clip CLIP model.
        tokens: (n, context_length) ids as :func:`clip.tokenize` returns them.

    Returns:
        (n, embed_dim), equal to the model's own ``encode_text`` over all positions.
    """
    eot = tokens.argmax(dim=-1)
    return encode_prompts(model, embed_tokens(model, tokens[:, : int(eot.max()) + 1]), eot)
