"""CoOp: the context words of CLIP's prompts as trainable vectors (Zhou et al., 2022, IJCV)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import clip
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import PromptedCLIP

POSITIONS = ("end", "middle", "front")


class PromptLearner(nn.Module):
    """Prompts [SOS, context, class name, ".", EOS] whose context is learned (section 3.2).

    Args:
        backbone: an open_clip CLIP, for its token embeddings.
        classnames: one name for each class.
        n_ctx: number of context tokens, unless ``ctx_init`` is given.
        ctx_init: words whose embeddings the context starts from, one vector for each of their
            tokens; empty for a normal distribution with standard deviation 0.02.
        class_specific: a context for each class instead of a shared one.
        position: where the class name stands: ``end`` (after the context), ``middle`` or ``front``.

    Attributes:
        ctx: parameter (n_ctx, width), or (classes, n_ctx, width) if class-specific.
        eot: int64 buffer (classes,), position of the end-of-text tokens.

    Raises:
        ValueError: unknown position, or no context at all.
        clip.PromptTooLongError: context and class name exceed the text tower's positions.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classnames: list[str],
        n_ctx: int = 16,
        ctx_init: str = "",
        class_specific: bool = False,
        position: str = "end",
    ) -> None:
        super().__init__()
        if position not in POSITIONS:
            raise ValueError(
                f"CLASS_TOKEN_POSITION {position!r}: choose one of {', '.join(POSITIONS)}"
            )
        device = next(backbone.parameters()).device
        names = [name.replace("_", " ") for name in classnames]
        words = ctx_init.replace("_", " ").strip()
        if words:
            n_ctx = int(clip.tokenize(words).argmax()) - 1
        elif n_ctx < 1:
            raise ValueError(f"N_CTX is {n_ctx}: a prompt learner needs at least one context token")
        else:
            words = " ".join(["X"] * n_ctx)
        tokens = clip.tokenize([f"{words} {name}." for name in names]).to(device)
        eot = tokens.argmax(dim=-1)
        embedded = clip.embed_tokens(backbone, tokens[:, : int(eot.max()) + 1])
        context = embedded[:, 1 : 1 + n_ctx] if class_specific else embedded[0, 1 : 1 + n_ctx]
        self.ctx = nn.Parameter(context.clone())
        if not ctx_init:
            nn.init.normal_(self.ctx, std=0.02)
        self.position = position
        self.register_buffer("eot", eot, persistent=False)
        self.register_buffer("token_prefix", embedded[:, :1], persistent=False)
        self.register_buffer("token_suffix", embedded[:, 1 + n_ctx :], persistent=False)
        lengths = clip.tokenize(names).argmax(dim=-1).sub(1).tolist()
        order = [_order(position, n_ctx, length, embedded.shape[1]) for length in lengths]
        self.register_buffer("order", torch.tensor(order, device=device), persistent=False)

    def forward(self) -> Tensor:
        """Return prompts (classes, length, width), length = max(eot) + 1, without positions."""
        context = self.ctx if self.ctx.ndim == 3 else self.ctx.expand(len(self.eot), -1, -1)
        prompts = torch.cat([self.token_prefix, context, self.token_suffix], dim=1)
        if self.position == "end":
            return prompts
        return prompts.gather(1, self.order[..., None].expand_as(prompts))


def _order(position: str, n_ctx: int, name_length: int, length: int) -> list[int]:
    """Positions in [SOS, context, name, rest] from which the wanted layout takes its tokens."""
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    name = range(1 + n_ctx, 1 + n_ctx + name_length)
    rest = range(1 + n_ctx + name_length, length)
    return [0, *range(1, 1 + before), *name, *range(1 + before, 1 + n_ctx), *rest]


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimization (Zhou et al., 2022)."""

    node = "COOP"

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> nn.Module:
        learner = PromptLearner(
            backbone,
            classnames,
            n_ctx=self.settings.N_CTX,
            ctx_init=self.settings.CTX_INIT,
            class_specific=self.settings.CSC,
            position=self.settings.CLASS_TOKEN_POSITION,
        )
        return PromptedCLIP(backbone, learner)
