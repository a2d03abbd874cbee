"""ProGrad: CoOp that never moves against what zero-shot CLIP knows (Zhu et al., 2023, ICCV)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

import clip
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import check_choice
from trainers.context import count_tokens
from trainers.coop import CoOp
from trainers.prompted import PromptedCLIP

FROM_TEMPLATE = "True"  # what CTX_INIT is in the authors' files


def start_from_(context: Tensor, backbone: nn.Module, words: str) -> None:
    """Fill a context (..., n_ctx, width) with zeros, and its end with the (last) words."""
    n_ctx = context.shape[-2]
    tokens = clip.tokenize(words)[:, 1 : 1 + count_tokens(words)].to(context.device)
    end = clip.embed_tokens(backbone, tokens)[0, -n_ctx:]
    context.zero_()
    context[..., n_ctx - len(end) :, :] = end


@TRAINER_REGISTRY.register()
class ProGrad(CoOp):
    """Prompt-aligned gradient (Zhu et al., 2023, section 3.2).

        g' = g - LAMBDA min(<g, h^>, 0) h^,    h^ = h / |h|

    For each parameter tensor g is the gradient of the cross-entropy, and h that of the divergence
    KL(p_zs || p) of the prediction from the zero-shot one, both at temperature T.

    Where CTX_INIT is True, the N_CTX vectors start as in the authors' code: the last ones from the
    words of the template before the class name, the others from zero. (That code counts a comma and
    the word before it as one token, and so loses the last word; this one does not.)
    """

    authors_templates = {
        "OxfordPets": ("a type of pet, a photo of a {}.",),
        "OxfordFlowers": ("a type of flower, a photo of a {}.",),
        "FGVCAircraft": ("a type of aircraft, a photo of a {}.",),
        "DescribableTextures": ("a texture of {}.",),
        "Food101": ("a type of food, a photo of {}.",),
    }

    def check_cfg(self, cfg: Any) -> None:
        super().check_cfg(cfg)
        check_choice("LOSS.NAME", cfg.LOSS.NAME, ("prograd",))

    @property
    def starts_from_template(self) -> bool:
        return bool(self.settings.CTX_INIT == FROM_TEMPLATE)

    def context_options(self) -> dict[str, Any]:
        options = super().context_options()
        return {**options, "ctx_init": ""} if self.starts_from_template else options

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        model = super().build_prompted_clip(backbone, classnames)
        if self.starts_from_template:
            words = self.templates[0].partition("{}")[0]
            start_from_(model.prompt_learner.get_parameter("ctx").data, backbone, words)
        return model

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
