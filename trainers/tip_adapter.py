"""Tip-Adapter: a cache of few-shot images, as it is or trained on (Zhang et al., 2022, ECCV)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import distributed
from trainers.base import PromptTrainer
from trainers.image_cache import CachedCLIP, ImageCache
from trainers.named_classes import encode_classes
from trainers.prompted import PromptedCLIP
from trainers.templates import IMAGENET_TEMPLATES_SELECT

IMAGENETS = ("ImageNet", "ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")
EPSILON = 1e-4  # of AdamW, the authors' choice: torch's is zero in half precision


@TRAINER_REGISTRY.register()
class TipAdapter(PromptTrainer):
    """A cache that one epoch fills, without a gradient (Zhang et al., 2022, section 3.1)."""

    model: CachedCLIP
    node = "TIPADAPTER"
    model_name = "tip_adapter"
    authors_templates = dict.fromkeys(IMAGENETS, IMAGENET_TEMPLATES_SELECT)

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        text = self.zero_shot_text
        alpha, beta = self.settings.INIT_ALPHA, self.settings.INIT_BETA
        return CachedCLIP(backbone, text, ImageCache(text, classnames, alpha, beta))

    def run_epoch(self) -> None:
        self.fill()
        self.search()

    def fill(self) -> None:
        """Put the training images into the cache, each with the mean feature of several views."""
        loader = self.dm.train_loader_x
        views = self.features_of_views(loader, self.settings.AUGMENT_EPOCH)
        keys = F.normalize(views.mean(dim=1), dim=-1)
        labels = torch.tensor([item.label for item in loader.dataset.data_source])
        names = self.dm.dataset.classnames
        numbers = labels.bincount(minlength=len(names)).tolist()
        self._set(
            cache_keys=keys[labels.argsort(stable=True)], classes=encode_classes(names, numbers)
        )

    @torch.no_grad()
    def search(self) -> None:
        """Choose alpha and beta by the validation images, unless those are test images.

        Of those with the best accuracy, of which few images leave many, the most likely ones.
        """
        data = self.dm.dataset
        test = {item.impath for item in data.test or ()}
        if not data.val or any(item.impath in test for item in data.val):
            print("No validation images of their own: alpha and beta stay as configured")
            return
        self.set_model_mode("eval")
        scale, steps = self.settings.SEARCH_SCALE, self.settings.SEARCH_STEP
        betas, alphas = (
            0.1 + torch.arange(n, device=self.device) * ((high - 0.1) / n)
            for high, n in zip(scale, steps, strict=True)
        )
        batches = self.features.batches(self.val_loader, self.model.encode_image)
        ratings = torch.zeros(2, len(betas), len(alphas), device=self.device, dtype=torch.double)
        for batch in distributed.gather(self.parse_batch_test(batch) for batch in batches):
            image, label = (tensor.to(self.device) for tensor in batch)
            ratings += self.model.rate(self.model.image_features(image), label, betas, alphas)
        correct, probability = ratings
        best = int((correct + probability / (1 + len(data.val))).argmax())
        best = distributed.broadcast(best)
        alpha, beta = alphas[best % len(alphas)], betas[best // len(alphas)]
        self._set(alpha=alpha, beta=beta)
        print(f"alpha {alpha:.4f} and beta {beta:.4f} fit the validation images best")

    def run_summary(self) -> dict[str, Any]:
        cache = self.model.prompt_learner
        return {**super().run_summary(), "alpha": cache.alpha.item(), "beta": cache.beta.item()}

    def _set(self, **tensors: Tensor) -> None:
        """Load tensors into the cache, whose other weights stay what they are."""
        cache = self.model.prompt_learner
        kept = {
            name: tensor
            for name, tensor in cache.state_dict().items()
            if name.removeprefix("parametrizations.").partition(".")[0] not in tensors
        }
        cache.load_state_dict({**kept, **tensors})


@TRAINER_REGISTRY.register()
class TipAdapterF(TipAdapter):
    """A cache whose keys are trained on (Zhang et al., 2022, section 3.2)."""

    def build_model(self) -> None:
        super().build_model()
        for group in self.optim.param_groups:
            group["eps"] = EPSILON

    def run_epoch(self) -> None:
        if self.epoch == 0:
            self.fill()
        alpha, beta = self.settings.INIT_ALPHA, self.settings.INIT_BETA
        self._set(alpha=torch.tensor(alpha), beta=torch.tensor(beta))
        PromptTrainer.run_epoch(self)
        self.search()
