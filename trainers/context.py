"""The prompts of all classes around a context that is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import clip
from dassl.utils import UserError


def count_tokens(words: str) -> int:
    """Return the number of tokens of some words, without start and end."""
    return int(clip.tokenize(words.replace("_", " ")).argmax()) - 1


def check_tokens(key: str, number: int) -> None:
    """Raise a UserError unless a prompt has tokens; ``key`` is what sets their number."""
    if number < 1:
        raise UserError(f"{key} is {number}: a prompt needs at least one token")


class ContextLearner(nn.Module):
    """Prompts [SOS, context, class name, ".", EOS] whose context is learned.

    Args:
        backbone: an open_clip CLIP, for its token embeddings.
        classnames: one name for each class.
        n_ctx: number of learned tokens.
        ctx_init: words whose first ``n_ctx`` embeddings the context starts from; their others
            stay in the prompts as they are. Empty, or fewer tokens than ``n_ctx``: a normal
            distribution with standard deviation 0.02.
        class_specific: a context for each class instead of a shared one.

    Attributes:
        ctx: parameter (n_ctx, width), or (classes, n_ctx, width) if class-specific.
        prefix_length: number of leading tokens that the prompts of all classes have in common.
        lengths: number of tokens after those, up to the end of the text, for each class.

    Raises:
        UserError: no context at all.
        clip.PromptTooLongError: context and class name exceed the text tower's positions.
    """

    ctx: Tensor
    token_prefix: Tensor
    token_suffix: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        classnames: list[str],
        n_ctx: int,
        ctx_init: str = "",
        class_specific: bool = False,
    ) -> None:
        super().__init__()
        check_tokens("N_CTX", n_ctx)
        words = ctx_init.replace("_", " ").strip()
        from_words = count_tokens(words) >= n_ctx
        if not from_words:
            words = " ".join(["X"] * n_ctx)
        names = [name.replace("_", " ") for name in classnames]
        tokens = clip.tokenize([f"{words} {name}." for name in names])
        tokens = tokens.to(next(backbone.parameters()).device)
        ends = tokens.argmax(dim=-1)
        embedded = clip.embed_tokens(backbone, tokens[:, : int(ends.max()) + 1])
        self.n_ctx = n_ctx
        self.prefix_length = 1 if class_specific else clip.count_common(tokens)
        self._ends = ends.tolist()
        context = embedded[:, 1 : 1 + n_ctx] if class_specific else embedded[0, 1 : 1 + n_ctx]
        self.ctx = nn.Parameter(context.clone())
        if not from_words:
            nn.init.normal_(self.ctx, std=0.02)
        self.register_buffer("token_prefix", embedded[:, :1], persistent=False)
        self.register_buffer("token_suffix", embedded[:, 1 + n_ctx :], persistent=False)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(end + 1 - self.prefix_length for end in self._ends)

    def build_prompts(self, contexts: Tensor) -> clip.Prompts:
        """Put each of m contexts, (m, n_ctx, width), between start and class names."""
        m, words = len(contexts), self.prefix_length - 1 - self.n_ctx
        start = self.token_prefix[:1].expand(m, -1, -1)
        common = self.token_suffix[:1, :words].expand(m, -1, -1)
        # (m, 1, width), (m, n_ctx, width), (m, words, width): what all classes have in common
        prefix = torch.cat([start, contexts, common], dim=1)
        return clip.Prompts(prefix, self.token_suffix[:, words:], self.lengths)
