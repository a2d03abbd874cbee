"""KgCoOp: CoOp that stays close to a hand-written prompt (Yao et al., 2023, CVPR)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY
from trainers.coop import CoOp


@TRAINER_REGISTRY.register()
class KgCoOp(CoOp):
    """Knowledge-guided context optimization (Yao et al., 2023, section 3.2).

        L = L_ce + W (1 - mean_i cos(w_i, w_i^clip))

    w_i is the text feature of class i, and w_i^clip that of the data set's template. The paper
    writes |w_i - w_i^clip|^2, which is 2 (1 - cos); W = 8 is the authors' weight of this form.
    """

    authors_templates = {"DescribableTextures": ("a photo of a {}, a type of texture.",)}

    def context_options(self) -> dict[str, Any]:
        options = super().context_options()
        if options["ctx_init"] == "True":  # as in the authors' files
            options["ctx_init"] = "a photo of a"
        return options

    def loss(self, image: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        _, text = self.model.encode_classes()
        logits = self.model.logits(image, text)
        similarity = F.cosine_similarity(text.float(), self.zero_shot_text.float())
        loss = F.cross_entropy(logits, label) + self.settings.W * (1 - similarity.mean())
        return loss, logits
