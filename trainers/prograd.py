"""ProGrad: CoOp that never moves against what zero-shot CLIP knows (Zhu et al., 2023, ICCV)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import check_choice
from trainers.coop import CoOp


@TRAINER_REGISTRY.register()
class ProGrad(CoOp):
    """Prompt-aligned gradient (Zhu et al., 2023, section 3.2).

        g' = g - LAMBDA min(<g, h^>, 0) h^,    h^ = h / |h|

    For each parameter tensor g is the gradient of the cross-entropy, and h that of the divergence
    KL(p_zs || p) of the prediction from the zero-shot one, both at temperature T.
    """

    def check_cfg(self, cfg: Any) -> None:
        super().check_cfg(cfg)
        check_choice("LOSS.NAME", cfg.LOSS.NAME, ("prograd",))

    def loss(self, image: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        """Return cross-entropy, divergence and logits."""
        loss, logits = super().loss(image, label)
        predicted, expected = (
            F.log_softmax(scores / self.cfg.LOSS.T, dim=-1)
            for scores in (logits, self.model.logits(image, self.zero_shot_text))
        )
        divergence = F.kl_div(predicted, expected, reduction="batchmean", log_target=True)
        return loss, divergence, logits

    def backward(self, loss: Tensor, divergence: Tensor) -> None:  # type: ignore[override]
        parameters = [p for group in self.optim.param_groups for p in group["params"]]
        self.scaler.scale(divergence).backward(retain_graph=True)
        directions = [F.normalize(p.grad.float().flatten(), dim=0).view_as(p) for p in parameters]
        self.optim.zero_grad()
        super().backward(loss)
        for parameter, direction in zip(parameters, directions, strict=True):
            conflict = (parameter.grad * direction).sum().clamp(max=0)
            parameter.grad -= self.cfg.LOSS.LAMBDA * conflict * direction
