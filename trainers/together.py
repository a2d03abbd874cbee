"""The gradients of several runs at once: each tower encodes what all of them need in one pass.

The runs of a sweep on one data set differ in their prompts, not in what happens to these: the
prompts of m runs are m prefixes of one text pass, and images that several runs see are encoded
once. No run's loss depends on another run's weights, so one backward pass from all losses leaves
each run its own gradient. It is that of a single run up to rounding: sums over larger matrices are
taken in another order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

import clip
from trainers.base import Gradients, PromptTrainer
from trainers.features import digest
from trainers.prompted import PromptedCLIP

# tokens in one pass: more of them make it no faster, and take more memory
TOKENS = {"cpu": 1024, "cuda": 16384}

Request = tuple[PromptTrainer, dict[str, Any]]  # a trainer and the batch that it is to learn from


class Step(NamedTuple):
    """What the loss of one run follows from; images are features where the tower is frozen."""

    trainer: PromptTrainer
    image: Tensor
    label: Tensor
    prompts: clip.Prompts

    @property
    def tokens(self) -> int:
        m, p, _ = self.prompts.prefix.shape
        texts = m * (p + sum(self.prompts.lengths))
        if self.prompts.image is None:
            return texts
        patches = clip.vision_tower(self.trainer.model.backbone).positional_embedding
        return texts + len(self.image) * (len(patches) + len(self.prompts.image))


def gradients_together(requests: Sequence[Request]) -> list[Gradients | Exception]:
    """Do for each trainer and its batch what :meth:`PromptTrainer.gradients` does.

    Returns:
        What that returns or raises.
    """
    answers: dict[PromptTrainer, Gradients | Exception] = {}
    groups: dict[Hashable, list[Step]] = {}
    _encode_images(requests)
    for trainer, batch in requests:
        try:
            if _is_cross_entropy_of_prompts(trainer):
                step = _begin(trainer, batch)
                groups.setdefault(_kind(step), []).append(step)
            else:
                answers[trainer] = trainer.gradients(batch)
        except Exception as error:
            answers[trainer] = error
    for steps in (part for group in groups.values() for part in _parts(group)):
        try:
            answers.update(_finish(steps))
        except Exception as error:
            answers.update(dict.fromkeys((step.trainer for step in steps), error))
    return [answers[trainer] for trainer, _ in requests]


def _encode_images(requests: Sequence[Request]) -> None:
    """Let each frozen tower encode, in one pass, all images that some trainer needs."""
    needed: dict[int, tuple[PromptTrainer, dict[int, Tensor]]] = {}
    for trainer, batch in requests:
        image = batch["img"]
        on_device = image.device.type == trainer.device.type
        if trainer.model.frozen_image_tower and image.ndim == 4 and on_device:
            images = needed.setdefault(id(trainer.known_features), (trainer, {}))[1]
            images[id(image)] = image
    for trainer, images in needed.values():
        distinct = list(images.values())
        with suppress(Exception):  # each trainer then encodes its own, and says what is wrong
            features = trainer.encode_frozen(torch.cat(distinct)).split([len(i) for i in distinct])
            trainer.known_features.update(zip(distinct, features, strict=True))


def _is_cross_entropy_of_prompts(trainer: PromptTrainer) -> bool:
    cls, model = type(trainer), type(trainer.model)
    return (
        trainer.cfg.TRAIN.COMPILE == "none"
        and cls.loss is PromptTrainer.loss
        and cls.backward is PromptTrainer.backward
        and cls.gradients is PromptTrainer.gradients
        and model.encode_classes is PromptedCLIP.encode_classes
    )


def _begin(trainer: PromptTrainer, batch: dict[str, Any]) -> Step:
    image, label = trainer.parse_batch_train(batch)
    with trainer.autocast():
        return Step(trainer, image, label, trainer.model.prompts(image))


_suffixes: WeakKeyDictionary[PromptTrainer, str] = WeakKeyDictionary()  # their digests


def _kind(step: Step) -> Hashable:
    """What steps have in common that go through the towers in one pass."""
    trainer, prompts = step.trainer, step.prompts
    # contexts of single classes; open_clip's own layers know no deep prompts of single prefixes
    if prompts.suffix.requires_grad or trainer.cfg.MODEL.TEXT_ENCODING == "full":
        return id(trainer)
    if trainer not in _suffixes:
        _suffixes[trainer] = digest([("suffix", prompts.suffix)])
    layers = (*prompts.deep_text, *prompts.deep_image)
    image = None if prompts.image is None else (prompts.image.shape, step.image.shape[1:])
    return (
        id(trainer.model.backbone),
        trainer.precision,
        trainer.cfg.MODEL.TEXT_CHUNK,
        _suffixes[trainer],
        tuple(prompts.lengths),
        prompts.prefix.shape[1:],
        tuple(prompt.shape for prompt in layers),
        image,
    )


def _parts(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Split steps into those that make one pass."""
    part: list[Step] = []
    limit = TOKENS.get(steps[0].trainer.device.type, 0)
    for step in steps:
        if part and sum(other.tokens for other in part) + step.tokens > limit:
            yield part
            part = []
        part.append(step)
    yield part


def _finish(steps: Sequence[Step]) -> dict[PromptTrainer, Gradients]:
    """Run the towers, and leave the gradients in the trainers' parameters."""
    model, prompts = steps[0].trainer.model, _join(steps)
    images = [step.image for step in steps]
    answers: dict[PromptTrainer, Gradients] = {}
    with steps[0].trainer.autocast():
        if not model.frozen_image_tower:
            features = model.encode_image(torch.cat(images), prompts)
            images = list(features.split([len(image) for image in images]))
        texts = model.encode_prompts(prompts).split([len(step.prompts.prefix) for step in steps])
        for (trainer, _, label, _), image, text in zip(steps, images, texts, strict=True):
            logits = trainer.model.logits(image, text[0] if len(text) == 1 else text)
            answers[trainer] = [F.cross_entropy(logits, label)], logits, label
    for trainer in answers:
        trainer.optim.zero_grad()
    torch.autograd.backward(
        [trainer.scaler.scale(loss) for trainer, ([loss], *_) in answers.items()]
    )
    return answers


def _join(steps: Sequence[Step]) -> clip.Prompts:
    """Return the prompts of all steps as those of one: each prefix and image with its own."""
    if len(steps) == 1:
        return steps[0].prompts
    each = [step.prompts for step in steps]
    prefixes, images = [len(p.prefix) for p in each], [len(step.image) for step in steps]

    def cat(prompts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
        """(n_ctx, width) each, to (sum of sizes, n_ctx, width)."""
        pairs = zip(prompts, sizes, strict=True)
        return torch.cat([prompt.expand(size, -1, -1) for prompt, size in pairs])

    def cat_layers(layers: Sequence[Sequence[Tensor]], sizes: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(cat(layer, sizes) for layer in zip(*layers, strict=True))

    learned = [p.image for p in each if p.image is not None]
    return each[0]._replace(
        prefix=torch.cat([p.prefix for p in each]),
        deep_text=cat_layers([p.deep_text for p in each], prefixes),
        image=cat(learned, images) if learned else None,
        deep_image=cat_layers([p.deep_image for p in each], images),
    )
