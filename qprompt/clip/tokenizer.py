"""CLIP's byte-pair tokenizer (open_clip's), with a message where others cut silently."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from .errors import PromptTooLongError

CONTEXT_LENGTH = 77
VOCABULARY_SIZE = 49408


@functools.cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def tokenize(texts: str | Sequence[str], context_length: int = CONTEXT_LENGTH) -> Tensor:
    """Turn texts into token ids: start of text, the text's byte pairs, end of text, zeros.

    Args:
        texts: one text or a sequence of n texts.
        context_length: number of positions.

    Returns:
        int64 tensor of shape (n, context_length). The end-of-text token has the largest id of its
        row, so ``tokens.argmax(-1)`` is its position.

    Raises:
        PromptTooLongError: a text does not fit into ``context_length`` positions.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        length = len(_tokenizer().encode(text)) + 2
        if length > context_length:
            raise PromptTooLongError(
                f"{text!r} has {length} tokens with start and end, but the text tower takes "
                f"{context_length}: shorten the prompt or the class name"
            )
    if not texts:
        return torch.zeros(0, context_length, dtype=torch.long)
    return _tokenizer()(texts, context_length=context_length)
