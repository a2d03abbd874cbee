"""CLIP with a learned prompt: logits and probabilities of images for any class names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F

from ..clip import (
    ContextLayout,
    Prompts,
    compare_features,
    compute_dtype,
    embed_classes,
    embed_dim,
    encode_image,
    encode_prompts,
    text_tower,
    vision_tower,
)
from ..errors import InvalidOptionError
from ..prompt import Prompt
from .images import Preprocess, stack
from .learned import Learned, read_learned

TEXT_CHUNK = 2048  # prompts that are in memory at once
BATCH_SIZE = 64  # images


class Classification(NamedTuple):
    """What images show: probabilities (images, classes) in float32, on the CPU."""

    classnames: list[str]
    probabilities: Tensor

    def top(self, k: int = 1) -> list[list[tuple[str, float]]]:
        """Return for each image the k most probable classes, or all if they are fewer."""
        values, indices = self.probabilities.topk(min(k, len(self.classnames)), dim=-1)
        return [
            [(self.classnames[i], value) for i, value in zip(row, of_row, strict=True)]
            for row, of_row in zip(indices.tolist(), values.tolist(), strict=True)
        ]


class AppliedPrompt:
    """A frozen CLIP with a learned prompt.

    Args:
        prompt: what was learned.
        backbone: an open_clip CLIP, in evaluation mode.

    Attributes:
        preprocess: from an image to the pixels that :meth:`logits` takes.

    Raises:
        InvalidOptionError: the prompt is of another width or depth, or of a learner that it takes
            more than CLIP's encoders for.
        ClipError: the backbone cannot take learned prompts.
    """

    def __init__(self, prompt: Prompt, backbone: CLIP) -> None:
        self.prompt = prompt
        self.backbone = backbone
        self.device = next(backbone.parameters()).device
        self.dtype = compute_dtype(backbone)
        with torch.no_grad():
            self.learned = read_learned(prompt, self.dtype, self.device)
        _check_widths(prompt, self.learned, backbone)
        self.preprocess = Preprocess.of(prompt, backbone)
        self._encoded: tuple[list[str], Tensor] | None = None

    @property
    def conditional(self) -> bool:
        """Whether the prompt depends on the image (CoCoOp), so that no classifier is fixed."""
        return self.learned.meta_net is not None

    @torch.no_grad()
    def prompts(
        self, classnames: Sequence[str] | None = None, features: Tensor | None = None
    ) -> Prompts:
        """Return what the encoders take.

        Args:
            classnames: any names; None: those of the file.
            features: (m, embed_dim), normalised, of images; for a conditional prompt alone.

        Raises:
            InvalidOptionError: no classes, or others than those of class-specific contexts.
            PromptTooLongError: a class name is too long.
        """
        names, learned = self.classes(classnames), self.learned
        if learned.context is None:
            texts = embed_classes(self.backbone, learned.words, names)
        else:
            context = learned.context
            if learned.meta_net is not None:
                if features is None:
                    raise InvalidOptionError("this prompt depends on the image: give its features")
                context = context + learned.meta_net(features)[:, None]
            texts = self.layout(names)(context)
        return texts._replace(
            deep_text=learned.deep_text, image=learned.image, deep_image=learned.deep_image
        )

    def layout(self, classnames: Sequence[str]) -> ContextLayout:
        """Return what puts the context, whatever it is, among class names."""
        context: Any = self.learned.context  # there is one: the words alone need no layout
        return ContextLayout(
            *(self.backbone, classnames, context.shape[-2], self.learned.words),
            *(context.ndim == 3, self.learned.position),
        )

    def classes(self, classnames: Sequence[str] | None) -> list[str]:
        """Return the class names that are meant, if this prompt can have them."""
        known = self.prompt.classnames
        if isinstance(classnames, str):
            raise InvalidOptionError(f"{classnames!r} is one name: give a list of class names")
        names = known if classnames is None else list(classnames)
        if not names:
            origin = "the given list" if classnames is not None else f"'{self.prompt.path}'"
            raise InvalidOptionError(f"{origin} names no classes: say which there are")
        context = self.learned.context
        if context is None or context.ndim == 2:
            return names
        if names != (known or names) or len(names) != len(context):
            raise InvalidOptionError(
                f"'{self.prompt.path}' has a context for each of its {len(context)} classes "
                f"({', '.join((known or ['unnamed'])[:3])}, ...) and takes no others"
            )
        return names

    @torch.no_grad()
    def classifier(self, classnames: Sequence[str] | None = None) -> Tensor:
        """Return the text features (classes, embed_dim), normalised, in float32.

        Raises:
            InvalidOptionError: the prompt is conditional, and as :meth:`prompts`.
        """
        if self.conditional:
            raise InvalidOptionError(
                f"the prompts in '{self.prompt.path}' depend on the image, as CoCoOp's do: there is"
                " no classifier for all images"
            )
        return F.normalize(self._text_features(self.classes(classnames)).float(), dim=-1)

    def _text_features(self, names: list[str]) -> Tensor:
        if self._encoded is None or self._encoded[0] != names:
            prompts = self.prompts(names)
            self._encoded = names, encode_prompts(self.backbone, prompts, chunk=TEXT_CHUNK)[0]
        return self._encoded[1]

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, 3, height, width) to features (n, embed_dim), not normalised."""
        nothing = torch.empty(0, device=self.device)
        image = self.learned.image, self.learned.deep_image
        prompts = Prompts(nothing, nothing, (), (), *image)
        return encode_image(self.backbone, pixels.to(self.device, self.dtype), prompts)

    @torch.no_grad()
    def logits(self, pixels: Tensor, classnames: Sequence[str] | None = None) -> Tensor:
        """Map pixels to logits (n, classes) in float32.

        Args:
            pixels: (n, 3, height, width), made by :attr:`preprocess`.
            classnames: as for :meth:`prompts`.
        """
        image, names = self.encode_image(pixels), self.classes(classnames)
        if self.conditional:
            prompts = self.prompts(names, F.normalize(image, dim=-1))
            text = encode_prompts(self.backbone, prompts, chunk=TEXT_CHUNK)
        else:
            text = self._text_features(names)
        return compare_features(self.backbone, image, text)

    def classify(
        self,
        images: Iterable[Any],
        classnames: Sequence[str] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Classification:
        """Return how probable each class is for each image.

        Args:
            images: paths, PIL images or tensors, as :class:`Preprocess` takes them.
            classnames: as for :meth:`prompts`.
            batch_size: number of images that are encoded at once.

        Raises:
            ImageError: an image that cannot be read.
            InvalidOptionError: as :meth:`prompts`.
        """
        names, waiting = self.classes(classnames), iter(images)
        batches = iter(lambda: list(islice(waiting, batch_size)), [])
        pixels = (stack(batch, self.preprocess) for batch in batches)
        probabilities = [self.logits(batch, names).softmax(dim=-1).cpu() for batch in pixels]
        return Classification(names, torch.cat([torch.empty(0, len(names)), *probabilities]))


def _check_widths(prompt: Prompt, learned: Learned, backbone: CLIP) -> None:
    tower = text_tower(backbone)
    width = tower.token_embedding.weight.shape[1]
    contexts = () if learned.context is None else (learned.context,)
    wanted = [(tensor, width, "text") for tensor in chain(contexts, learned.deep_text)]
    if learned.image is not None:
        width = vision_tower(backbone).class_embedding.shape[-1]
        wanted += [(tensor, width, "image") for tensor in (learned.image, *learned.deep_image)]
    for tensor, width, name in wanted:
        if tensor.shape[-1] != width:
            raise InvalidOptionError(
                f"'{prompt.path}' was learned on {prompt.backbone or 'another backbone'}, whose "
                f"{name} tower has width {tensor.shape[-1]}; that of this backbone has {width}"
            )
    if learned.meta_net is not None and learned.meta_net[0].in_features != embed_dim(backbone):
        raise InvalidOptionError(
            f"'{prompt.path}' shifts its context by {learned.meta_net[0].in_features} image "
            f"features, and this backbone has {embed_dim(backbone)}"
        )
