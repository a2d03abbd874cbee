"""What every prompt trainer shares: backbone, precision, training step, loading of prompts."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

import clip
import qprompt
from dassl.engine import TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import Cache, UserError, check_choice, get_or_make, load_pretrained_weights
from dassl.utils.restore import unchanged_on_error
from trainers.features import FrozenFeatures
from trainers.named_classes import NamedClasses
from trainers.prompted import PromptedCLIP
from trainers.templates import template_features
from trainers.views import ViewLoader, view_features

PRECISIONS = ("fp16", "fp32", "bf16", "amp")
COMPILE_MODES = ("none", "default", "reduce-overhead")

MEETING = "meeting"  # where a Cache holds the function that trainers hand their batches to

Gradients = tuple[list[Tensor], Tensor, Tensor]  # losses, logits, labels; parameters have gradients


def resolve_precision(precision: str, device: torch.device) -> str:
    """Check a trainer's PREC and turn half precision into float32 where there is no GPU.

    Args:
        precision: ``fp16``, ``fp32``, ``bf16`` or ``amp`` (float32 weights, mixed arithmetic).
        device: where the model will run.

    Raises:
        UserError: unknown precision.
    """
    check_choice("PREC", precision, PRECISIONS)
    if device.type == "cpu" and precision in ("fp16", "amp"):
        warnings.warn(f"no GPU: PREC {precision} runs as fp32 on the CPU", stacklevel=2)
        return "fp32"
    return precision


def load_backbone(cfg: Any, precision: str, device: torch.device, cache: Cache | None) -> nn.Module:
    """Load the frozen CLIP that ``cfg.MODEL.BACKBONE.NAME`` names, unless ``cache`` holds it.

    Raises:
        UserError: ``cfg.INPUT.SIZE`` is not the image size of the backbone.
    """
    name = cfg.MODEL.BACKBONE.NAME
    weights = "fp32" if precision == "amp" else precision

    def load() -> CLIP:
        with torch.random.fork_rng(devices=[]):  # open_clip fills new models with random numbers
            return clip.load(name, weights, device).requires_grad_(False)

    backbone = get_or_make(cache, ("backbone", name, weights, str(device)), load).eval()
    size = backbone.visual.image_size
    expected = (size, size) if isinstance(size, int) else tuple(size)
    if tuple(cfg.INPUT.SIZE) != expected:
        raise UserError(
            f"INPUT.SIZE is {tuple(cfg.INPUT.SIZE)}, but the backbone {name} takes images of "
            f'{expected} pixels: set INPUT.SIZE "{expected}"'
        )
    return backbone


class PromptTrainer(TrainerX):
    """Train a prompt learner on a frozen CLIP.

    A subclass names its node below ``cfg.TRAINER`` and builds the prompted model; its loss is the
    cross-entropy of the class logits, unless it has another.

    Attributes:
        node: name of the configuration node.
        model_name: name under which the trained module is registered, hence of its folder.
        authors_templates: by data set, where the method's authors took others than CoOp's.
    """

    model: PromptedCLIP
    node: str
    scaler: torch.amp.GradScaler
    _compiled_loss: Callable[[Tensor, Tensor], tuple[Tensor, ...]] | None = None
    model_name = "prompt_learner"
    authors_templates: Mapping[str, Sequence[str]] = {}
    ignored_keys = ("token_prefix", "token_suffix")

    @property
    def settings(self) -> Any:
        """The trainer's own configuration node, ``cfg.TRAINER.<node>``."""
        return self.cfg.TRAINER[self.node]

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        """Return the model; :meth:`text_options` are for its constructor."""
        raise NotImplementedError

    def text_options(self) -> dict[str, Any]:
        """Return how :class:`PromptedCLIP` shall encode texts."""
        model = self.cfg.MODEL
        return {"text_encoding": model.TEXT_ENCODING, "text_chunk": model.TEXT_CHUNK}

    @property
    def templates(self) -> Sequence[str]:
        """The hand-written templates: DATASET.TEMPLATE, the authors' or else the data set's."""
        given = self.cfg.DATASET
        authors = self.authors_templates.get(given.NAME) if given.TEMPLATE is None else None
        return authors or self.dm.dataset.templates

    @functools.cached_property
    def zero_shot_text(self) -> Tensor:
        """Normalised text features (classes, embed_dim) of the templates."""
        return template_features(self.features, self.dm.dataset.classnames, self.templates)

    def checkpointed_module(self) -> nn.Module:
        """Return the part of ``self.model`` whose state makes up checkpoints."""
        return self.model.prompt_learner

    def build_model(self) -> None:
        cfg = self.cfg
        check_choice("TRAIN.COMPILE", cfg.TRAIN.COMPILE, COMPILE_MODES)
        self.precision = resolve_precision(self.settings.PREC, self.device)
        backbone = load_backbone(cfg, self.precision, self.device, self.cache)
        self.features = FrozenFeatures(
            backbone, cfg.MODEL.BACKBONE.NAME, cfg.TEST.FEATURE_CACHE, self.cache
        )
        self.model = self.build_prompted_clip(backbone, self.dm.dataset.classnames)
        self.model.to(self.device)
        trained = self.checkpointed_module()
        if cfg.MODEL.INIT_WEIGHTS:
            self.load_weights(trained, cfg.MODEL.INIT_WEIGHTS)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.model_name, trained, self.optim, self.sched)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "amp")

    def before_train(self) -> None:
        """Turn training images into a few views' features if CACHED_VIEWS asks for it.

        Raises:
            UserError: a negative number, or the image tower sees prompts, so that features change
                as they train.
        """
        views = self.cfg.DATALOADER.CACHED_VIEWS
        if views < 0:
            raise UserError(
                f"DATALOADER.CACHED_VIEWS is {views}: it is a number of views, or 0 for new ones "
                "in every epoch"
            )
        if views:
            if not self.model.frozen_image_tower:
                raise UserError(
                    f"DATALOADER.CACHED_VIEWS is {views}, but the image tower of "
                    f"{self.cfg.TRAINER.NAME} sees prompts: set it to 0"
                )
            features = self.features_of_views(self.train_loader_x, views)
            self.train_loader_x = ViewLoader(self.train_loader_x, features)
        super().before_train()  # last, because it restores the random generators

    def features_of_views(self, loader: Any, views: int) -> Tensor:
        """Return the features (images, views, embed_dim) of new views of training images."""
        return view_features(
            loader,
            views,
            self.features,
            lambda images: self.model.encode_image(images.to(self.device)),
        )

    def load_weights(self, module: nn.Module, path: str) -> None:
        """Load a packed prompt (``.safetensors``) or a checkpoint into ``module``."""
        if not path.endswith(".safetensors"):
            load_pretrained_weights(module, path)
        elif isinstance(module, NamedClasses):
            module.resize_(qprompt.unpack(path))
            qprompt.load_packed_(module, path)
            module.match_()
        else:
            qprompt.load_packed_(module, path)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a checkpoint folder, or one packed prompt when ``directory`` is such a file."""
        if directory and directory.endswith(".safetensors"):
            with unchanged_on_error(self._models.values()):
                for name in self.get_model_names():
                    self.load_weights(self._models[name], directory)
            origin = qprompt.read_metadata(directory)
            print(f'Loaded weights from "{directory}" ({origin})')
            self.epochs_done = int(origin["epoch"]) if "epoch" in origin else None
            self.weights_path, self.other_epoch = directory, None
        else:
            super().load_model(directory, epoch)

    def scores(self, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield logits (batch, classes) and labels (batch,), the texts encoded once for all."""
        with self.model.fixed():
            if self.model.frozen_image_tower:
                loader = self.features.batches(loader, self.model.encode_image)
            yield from super().scores(loader)

    def loss(self, image: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        """Return the loss of a batch, what else :meth:`backward` takes, and the logits.

        Args:
            image: features (n, embed_dim), not normalised, where the image tower is frozen; else
                images.
            label: (n,).
        """
        logits = self.model(image)
        return F.cross_entropy(logits, label), logits

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, scaled for mixed precision."""
        self.scaler.scale(loss).backward()

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        meet = (self.cache or {}).get(MEETING)
        losses, logits, label = meet((self, batch)) if meet else self.gradients(batch)
        self.scaler.step(self.optim)
        self.scaler.update()
        accuracy = compute_accuracy(logits.detach(), label)[0].squeeze()
        # after all that a GPU has to do, since this waits for it
        numbers = torch.stack([accuracy, *(loss.detach() for loss in losses)]).cpu()
        self.detect_anomaly(numbers)  # the weights may be NaN by now, and are not saved
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": numbers[1].item(), "acc": numbers[0].item()}

    def gradients(self, batch: dict[str, Any]) -> Gradients:
        """Leave the gradients of a batch in the parameters; return losses, logits and labels."""
        image, label = self.parse_batch_train(batch)
        with self.autocast():
            *losses, logits = self._step_loss(image, label)
        self.optim.zero_grad()
        self.backward(*losses)
        return losses, logits, label

    def _step_loss(self, image: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        """Return what :meth:`loss` returns, compiled from the second step on if cfg asks for it.

        In the first step a loss may compute what it keeps, such as features of the frozen CLIP.
        """
        loss = self._compiled_loss or self.loss
        if self.cfg.TRAIN.COMPILE != "none" and self._compiled_loss is None:
            self._compiled_loss = torch.compile(
                self.loss, fullgraph=True, dynamic=False, mode=self.cfg.TRAIN.COMPILE
            )
        return loss(image, label)

    def autocast(self) -> torch.autocast:
        """Return the context in which a step computes."""
        return torch.autocast(self.device.type, enabled=self.precision == "amp")

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images, or their features where the image tower is frozen, and labels."""
        image, label = self.parse_batch_test(batch)
        return self.frozen_features(image) if self.model.frozen_image_tower else image, label

    def frozen_features(self, image: Tensor) -> Tensor:
        """Return features (n, embed_dim) of images without prompts; features as they are."""
        if image.ndim == 2:
            return image
        if self.cache is None:
            return self.encode_frozen(image)
        known = self.known_features
        if image not in known:
            known[image] = self.encode_frozen(image)
        return known[image]

    def encode_frozen(self, image: Tensor) -> Tensor:
        """Encode images without prompts into features (n, embed_dim)."""
        with self.autocast():
            return self.model.encode_image(image)

    @functools.cached_property
    def known_features(self) -> Any:
        """Features of the images that runs which train together see at the moment."""
        key = ("features of batches", id(self.model.backbone), self.precision)
        return get_or_make(self.cache, key, WeakIdKeyDictionary)

    def run_summary(self) -> dict[str, Any]:
        """Add the size of what was learned, in half precision as the paper counts it."""
        learned = sum(
            parameter.numel()
            for module in self._models.values()
            for parameter in module.parameters()
            if parameter.requires_grad
        )
        return {**super().run_summary(), "stored_bytes": 2 * learned}
