"""What a prompt learner hands to the encoders of both towers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Prompts(NamedTuple):
    """Prompts as embeddings without positions: each of m prefixes before each of n suffixes.

    n is the number of classes; m is 1, or the number of images where each has a prefix of its own
    (CoCoOp). With four context tokens and the classes "cat" and "fire truck" the prefix is [start,
    ctx, ctx, ctx, ctx], and the suffixes are [cat, ., end] and [fire, truck, ., end]: p = 5 and
    lengths = (3, 4).

    Attributes:
        prefix: (m, p, text width), what the texts have in common, p >= 1 with the start of text.
        suffix: (n, length, text width), what follows: class name, end of text and padding.
        lengths: n numbers of tokens, of each suffix up to and with its end-of-text token; what
            stands after it is ignored.
        deep_text: (n_ctx, text width) each, n_ctx < p: what replaces the tokens after the first one
            before layer 1, 2, ... of the text tower (Khattak et al., 2023, section 3.2.1).
        image: (n_ctx, image width), tokens after those of class and patches; None: no such tokens.
        deep_image: (n_ctx, image width) each: what replaces them before layer 1, 2, ... of the
            image tower (section 3.2.2).
    """

    prefix: Tensor
    suffix: Tensor
    lengths: Sequence[int]
    deep_text: tuple[Tensor, ...] = ()
    image: Tensor | None = None
    deep_image: tuple[Tensor, ...] = ()
