"""A cache of few-shot images and their labels beside zero-shot CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.named_classes import NamedClasses, encode_classes
from trainers.prompted import FixedTextCLIP


class ImageCache(NamedClasses):
    """What cached images say of the class of an image x; nothing of a class that they do not show.

        phi(x) = alpha exp(-beta (1 - x F')) V

    Source: Zhang et al., 2022, section 3.1.

    Args:
        text: normalised features (classes, embed_dim), the keys until there are images.
        classnames: one name for each class.
        alpha, beta: as above.

    Attributes:
        cache_keys: parameter (images, embed_dim), F, in order of their classes.
        classes: parameter, name and number of images of each cached class. A parameter, as alpha
            and beta are, because packed files hold nothing else.
        cache_values: (images, classes), V: ones where a cached image shows a class.
    """

    cache_values: Tensor
    sized_by_classes = ("cache_keys", "classes")

    def __init__(self, text: Tensor, classnames: Sequence[str], alpha: float, beta: float) -> None:
        super().__init__()
        self.classnames = classnames
        self.cache_keys = nn.Parameter(text.clone())
        self.classes = nn.Parameter(encode_classes(classnames, [1] * len(classnames)).to(text))
        self.alpha, self.beta = (nn.Parameter(torch.tensor(float(v))) for v in (alpha, beta))
        self.match_()

    def forward(self, image: Tensor) -> Tensor:
        """Map normalised features (n, embed_dim) to logits (n, classes)."""
        return self.alpha.detach() * self.scores(self.affinity(image), self.beta.detach())

    def affinity(self, image: Tensor) -> Tensor:
        """Return x F', (n, images), of normalised features (n, embed_dim)."""
        return (image @ self.cache_keys.t()).float()

    def scores(self, affinity: Tensor, beta: Tensor) -> Tensor:
        """Return the logits (n, classes) for alpha = 1."""
        return (-beta * (1 - affinity)).exp() @ self.cache_values

    @torch.no_grad()
    def match_(self) -> None:
        """Compute the values, by name, since other runs may number the classes otherwise."""
        columns, numbers = self.columns()
        unknown = len(self.classnames)
        shown = torch.tensor([unknown if column is None else column for column in columns])
        labels = shown.repeat_interleave(torch.tensor(numbers))
        values = F.one_hot(labels, unknown + 1)[:, :-1]
        self.cache_values = values.to(self.classes.device, torch.float)


class CachedCLIP(FixedTextCLIP):
    """Zero-shot CLIP with a cache of images, whose logits are added to its own."""

    prompt_learner: ImageCache

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        cached: Tensor = self.prompt_learner(F.normalize(image, dim=-1))
        return super().logits(image, text) + cached

    def rate(self, image: Tensor, label: Tensor, betas: Tensor, alphas: Tensor) -> Tensor:
        """Say how well each beta and alpha classify images.

        Args:
            image: features (n, embed_dim).
            label: (n,).
            betas, alphas: one-dimensional.

        Returns:
            (2, betas, alphas): the number of images that are classified correctly, and the sum of
            the probabilities of their classes.
        """
        zero_shot = super().logits(image, self.text)
        affinity = self.prompt_learner.affinity(F.normalize(image, dim=-1))
        ratings = []
        for beta in betas:
            cached = self.prompt_learner.scores(affinity, beta)
            logits = zero_shot + alphas[:, None, None] * cached  # (alphas, n, classes)
            correct = logits.argmax(dim=-1) == label
            probability = logits.softmax(dim=-1)[:, torch.arange(len(label)), label]
            ratings.append(torch.stack([correct, probability]).sum(dim=-1))
        return torch.stack(ratings, dim=1)
