"""Text encoding for prompts that are given as tensors instead of words.

CLIP's text transformer is causal and its feature is read at the end-of-text token (Radford et al.,
2021, section 2.4). So what stands after that token cannot matter, and a beginning that prompts have
in common has the same hidden states in all of them: both are left out of the computation.
"""

from __future__ import annotations

import torch
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .errors import PromptTooLongError, UnsupportedBackboneError
from .layers import check_depth, replace_prompts
from .prefix import encode_prefix, encode_suffixes, encode_texts
from .prompts import Prompts
from .tokenizer import VOCABULARY_SIZE


def text_tower(model: CLIP) -> CLIP | TextTransformer:
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


def compute_dtype(model: CLIP) -> torch.dtype:
    """Return the dtype of the model's matrix products, which images and prompts must have."""
    return text_tower(model).transformer.get_cast_dtype()


def embed_tokens(model: CLIP, tokens: Tensor) -> Tensor:
    """Look up token embeddings, without positions.

    Args:
        model: an open_clip CLIP model.
        tokens: (n, length) token ids.

    Returns:
        (n, length, width) in the text transformer's dtype.
    """
    return text_tower(model).token_embedding(tokens).to(compute_dtype(model))


def embed_dim(model: CLIP) -> int:
    """Return the number of features that texts and images are encoded into."""
    projection = text_tower(model).text_projection
    return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]


def encode_prompts(model: CLIP, prompts: Prompts, full: bool = False, chunk: int = 0) -> Tensor:
    """Encode the text prompts, each of m prefixes before each of n suffixes, into features.

    Args:
        model: an open_clip CLIP model.
        prompts: in any dtype.
        full: run all 77 positions of all m n prompts through the model's own layers, for
            comparison, instead of each prefix once and nothing after the end.
        chunk: how many of the m n prompts, at least m, are in memory at once; where there are more,
            each chunk is computed again in the backward pass. 0: all.

    Returns:
        (m, n, embed_dim) features, not normalised, in the text transformer's dtype; gradients flow
        into the prompts.

    Raises:
        UnsupportedBackboneError: as :func:`text_tower`.
        PromptTooLongError: a prompt does not fit into the tower's positions.
        ClipError: more deep prompts than layers that could take them.
    """
    tower = text_tower(model)
    prompts = _add_positions(tower, prompts, compute_dtype(model))
    m, n = prompts.prefix.shape[0], len(prompts.suffix)
    size = max(1, chunk // m) if chunk else n
    if size < n:
        x = _in_chunks(tower, prompts, full, size)
    elif full:
        x = _all_positions(tower, prompts)
    else:
        x = encode_texts(tower.transformer, prompts)
    x = tower.ln_final(x)  # (m, n, width)
    projection = tower.text_projection
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def _add_positions(tower: CLIP | TextTransformer, prompts: Prompts, dtype: torch.dtype) -> Prompts:
    prefix, suffix = prompts.prefix.to(dtype), prompts.suffix.to(dtype)
    p, length = prefix.shape[1], suffix.shape[1]
    positions = tower.positional_embedding.to(dtype)  # (77, width)
    if p + length > len(positions):
        raise PromptTooLongError(
            f"a prompt has {p + length} tokens with start and end, but the text tower takes "
            f"{len(positions)}: shorten the context or the class names"
        )
    return prompts._replace(
        prefix=prefix + positions[:p], suffix=suffix + positions[p : p + length]
    )


def _in_chunks(tower: CLIP | TextTransformer, prompts: Prompts, full: bool, size: int) -> Tensor:
    """The same hidden states, for ``size`` suffixes at a time and once more for the gradient."""
    kv_cache = () if full else encode_prefix(tower.transformer, prompts)

    def encode(texts: slice) -> Tensor:
        part = prompts._replace(
            suffix=prompts.suffix[texts], lengths=prompts.lengths[texts], rows=None
        )
        if full:
            return _all_positions(tower, part)
        return encode_suffixes(tower.transformer, kv_cache, part)

    chunks = [slice(i, i + size) for i in range(0, len(prompts.suffix), size)]
    states = [
        checkpoint(encode, texts, use_reentrant=False, preserve_rng_state=False) for texts in chunks
    ]
    return torch.cat(states, dim=1)


def _all_positions(tower: CLIP | TextTransformer, prompts: Prompts) -> Tensor:
    """The hidden states (m, n, width) of the end-of-text tokens, by open_clip's own layers."""
    prefix, suffix, deep = prompts.prefix, prompts.suffix, prompts.deep_text
    m, n = len(prefix), len(suffix)
    # (m, n, p, width), (m, n, length, width)
    x = torch.cat([prefix[:, None].expand(-1, n, -1, -1), suffix.expand(m, -1, -1, -1)], dim=2)
    rest = tower.positional_embedding[x.shape[2] :].to(x.dtype)
    x = torch.cat([x, rest.expand(m, n, -1, -1)], dim=2).flatten(0, 1)  # (m n, 77, width)
    check_depth(deep, tower.transformer.resblocks)
    for i, layer in enumerate(tower.transformer.resblocks):
        x = layer(replace_prompts(x, deep, i, 1), attn_mask=tower.attn_mask)
    last = torch.tensor(prompts.lengths, device=x.device) + (prefix.shape[1] - 1)
    return x.unflatten(0, (m, n))[:, torch.arange(n, device=x.device), last]


def count_common(tokens: Tensor) -> int:
    """Return how many leading tokens, of (n, context_length), all texts share before their ends."""
    same = int((tokens == tokens[0]).all(dim=0).long().cumprod(dim=0).sum())
    return min(same, int(tokens.argmax(dim=-1).min()))


def embed_texts(model: CLIP, tokens: Tensor) -> Prompts:
    """Turn token ids into prompts.

    Args:
        model: an open_clip CLIP model.
        tokens: (n, context_length) ids as :func:`clip.tokenize` returns them.
    """
    ends, common = tokens.argmax(dim=-1), count_common(tokens)
    embedded = embed_tokens(model, tokens[:, : int(ends.max()) + 1])
    lengths = tuple((ends + 1 - common).tolist())
    return Prompts(embedded[:1, :common], embedded[:, common:], lengths)


def encode_text(model: CLIP, tokens: Tensor) -> Tensor:
    """Encode token ids into features, not normalised.

    Args:
        model, tokens: as for :func:`embed_texts`.

    Returns:
        (n, embed_dim), equal to the model's own ``encode_text`` over all positions.
    """
    return encode_prompts(model, embed_texts(model, tokens))[0]
