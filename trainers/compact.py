"""Prompts without the projections that trained them, which inference does not need."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import qprompt
from trainers.base import PromptTrainer


class Constant(nn.Module):
    """What a projection yields once training is over: it stands in its place.

    Attributes:
        value: parameter (n_ctx, vision width).
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach().clone())

    def forward(self, prompts: Tensor) -> Tensor:
        return self.value


class CompactTrainer(PromptTrainer):
    """A trainer whose learner has ``compact()`` and ``is_compact``."""

    def load_weights(self, module: Any, path: str) -> None:
        """Load weights as every trainer does; those of a compact learner make this one compact."""
        learner = module.prompt_learner
        if _holds_compact_learner(path) and not learner.is_compact:
            compact = _in_whole_model(learner.compact())
            qprompt.load_packed_(compact, path)
            for part in compact.modules():
                if isinstance(part, Constant):
                    part.requires_grad_(False)  # nothing trains it, or quantizes it again
            module.prompt_learner = compact.prompt_learner
        else:
            super().load_weights(module, path)

    def packed_modules(self, module: Any) -> dict[str, nn.Module]:
        """Return what QMaPLe packs: the model, and the compact learner."""
        compact = _in_whole_model(module.prompt_learner.compact())
        if module.prompt_learner.is_compact:
            return {"": compact}
        return {"": module, "-inference": compact}


def _in_whole_model(learner: nn.Module) -> nn.ModuleDict:
    """Return a module whose tensors have the names that those of a whole model have."""
    return nn.ModuleDict({"prompt_learner": learner})


def _holds_compact_learner(path: str) -> bool:
    return path.endswith(".safetensors") and "prompt_learner.proj.value" in qprompt.unpack(path)
