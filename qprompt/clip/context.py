"""What stands around a learned context in the prompts of all classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .errors import ClipError
from .prompts import Prompts
from .rows import Rows
from .text import count_common, embed_texts, embed_tokens
from .tokenizer import tokenize

POSITIONS = ("end", "middle", "front")


def count_tokens(words: str) -> int:
    """Return the number of tokens of some words, without start and end."""
    return int(tokenize(words.replace("_", " ")).argmax()) - 1


def embed_classes(backbone: nn.Module, words: str, classnames: Sequence[str]) -> Prompts:
    """Return the prompts "words class name." that have no learned context."""
    texts = [f"{words} {name}.".replace("_", " ").strip() for name in classnames]
    return embed_texts(backbone, tokenize(texts).to(next(backbone.parameters()).device))


class ContextLayout(nn.Module):
    """Prompts [SOS, context, class name, ".", EOS] for any context (Zhou et al., 2022, IJCV).

    Args:
        backbone: an open_clip CLIP, for its token embeddings.
        classnames: one name for each class.
        n_ctx: number of context tokens, at least 1.
        words: what the context was before it was learned; those of its tokens that exceed ``n_ctx``
            stay in the prompts as they are.
        class_specific: a context for each class instead of a shared one.
        position: where the class name stands: ``end`` (after the context), ``middle`` or ``front``.

    Attributes:
        from_words: whether ``words`` have as many tokens as the context.
        start: (n_ctx, width), or (classes, n_ctx, width) if class-specific: embeddings of
            ``words``, or of placeholders.
        prefix_length: number of leading tokens that the prompts of all classes have in common.
        lengths: number of tokens after those, up to the end of the text, for each class.
        rows: how the texts are packed.

    Raises:
        ClipError: unknown position.
        PromptTooLongError: context and class name exceed the text tower's positions.
    """

    token_prefix: Tensor
    token_suffix: Tensor
    order: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        classnames: Sequence[str],
        n_ctx: int,
        words: str = "",
        class_specific: bool = False,
        position: str = "end",
    ) -> None:
        super().__init__()
        if position not in POSITIONS:
            raise ClipError(
                f"CLASS_TOKEN_POSITION is {position!r}: choose one of {', '.join(POSITIONS)}"
            )
        self.class_specific = class_specific
        words = words.replace("_", " ").strip()
        self.from_words = count_tokens(words) >= n_ctx
        if not self.from_words:
            words = " ".join(["X"] * n_ctx)
        names = [name.replace("_", " ") for name in classnames]
        tokens = tokenize([f"{words} {name}." for name in names])
        tokens = tokens.to(next(backbone.parameters()).device)
        ends = tokens.argmax(dim=-1)
        embedded = embed_tokens(backbone, tokens[:, : int(ends.max()) + 1])
        self.start = embedded[:, 1 : 1 + n_ctx] if class_specific else embedded[0, 1 : 1 + n_ctx]
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        if class_specific:
            self.prefix_length = 1
        else:
            self.prefix_length = count_common(tokens) if position == "end" else 1 + before
        self.lengths = tuple(end + 1 - self.prefix_length for end in ends.tolist())
        self.rows = Rows(self.lengths, self.prefix_length, embedded)
        self.register_buffer("order", None, persistent=False)
        if position != "end":
            sizes = (count_tokens(name) for name in names)
            order = [_order(before, n_ctx, size, embedded.shape[1]) for size in sizes]
            self.order = torch.tensor(order, device=tokens.device)
        self.register_buffer("token_prefix", embedded[:, :1], persistent=False)
        self.register_buffer("token_suffix", embedded[:, 1 + n_ctx :], persistent=False)

    def forward(self, contexts: Tensor) -> Prompts:
        """Put contexts between start and class names.

        Args:
            contexts: (n_ctx, width), or (classes, n_ctx, width) if class-specific; before the class
                names also (m, n_ctx, width), one for each prefix.
        """
        if self.order is not None or self.class_specific:
            contexts = contexts.expand(len(self.token_prefix), -1, -1)
            # (classes, 1, width), (classes, n_ctx, width), (classes, class name and rest, width)
            tokens = torch.cat([self.token_prefix, contexts, self.token_suffix], dim=1)
            if self.order is not None:
                tokens = tokens.gather(1, self.order[..., None].expand_as(tokens))
            start, rest = tokens[:1, : self.prefix_length], tokens[:, self.prefix_length :]
            return Prompts(start, rest, self.lengths, rows=self.rows)
        contexts = contexts[None] if contexts.ndim == 2 else contexts
        m, words = contexts.shape[0], self.prefix_length - 1 - contexts.shape[1]
        start = self.token_prefix[:1].expand(m, -1, -1)
        common = self.token_suffix[:1, :words].expand(m, -1, -1)
        # (m, 1, width), (m, n_ctx, width), (m, words, width): what all classes have in common
        prefix = torch.cat([start, contexts, common], dim=1)
        return Prompts(prefix, self.token_suffix[:, words:], self.lengths, rows=self.rows)


def _order(before: int, n_ctx: int, name_length: int, length: int) -> list[int]:
    """Positions in [SOS, context, name, rest] from which the wanted layout takes its tokens."""
    name = range(1 + n_ctx, 1 + n_ctx + name_length)
    rest = range(1 + n_ctx + name_length, length)
    return [0, *range(1, 1 + before), *name, *range(1 + before, 1 + n_ctx), *rest]
