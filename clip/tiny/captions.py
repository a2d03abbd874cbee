"""Captions of rendered characters: what the image shows, and some of how it looks.

Captions name traits of their image ("a photo of a bold white seven."), so that the words around a
class name carry meaning, as they do for CLIP; a model trained on bare class names learns to ignore
them, and then there is nothing for a learned context to adapt.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from clip.tiny.render import CHARACTERS, TRAITS
from qprompt.clip.tokenizer import tokenize

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAMES = DIGIT_NAMES + tuple(CHARACTERS[10:])
TEMPLATES = (
    "{}",
    "a {}.",
    "the {}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "an image of the {}.",
    "a picture of one {}.",
    "a photo of what is probably a {}.",
    "this is a picture that shows a {}.",
    "in the middle of this image you can see a single {}.",
)
TRAIT_PROBABILITY = 0.4  # that a caption states a trait
KIND_PROBABILITY = 0.5  # that it says whether the character is a digit or a letter


def caption(label: int, traits: list[int], generator: random.Random) -> tuple[str, list[bool]]:
    """Describe one image: a template, some of its traits, and the character's name.

    Args:
        label: index of the character.
        traits: index of each trait's word in ``TRAITS``.
        generator: source of all randomness.

    Returns:
        The caption, and which of the traits it states.
    """
    stated = [index > 0 and generator.random() < TRAIT_PROBABILITY for index in traits]
    words = [TRAITS[j][index] for j, index in enumerate(traits) if stated[j]]
    if generator.random() < KIND_PROBABILITY:
        words.append("digit" if label < 10 else "letter")
    return generator.choice(TEMPLATES).format(" ".join([*words, NAMES[label]])), stated


def captions(labels: Tensor, traits: Tensor, generator: random.Random) -> tuple[Tensor, Tensor]:
    """Describe n images, and tell which caption is true of which image.

    Args:
        labels: (n,) characters.
        traits: (n, len(TRAITS)).
        generator: source of all randomness.

    Returns:
        Token ids (n, 77), and booleans (n images, n captions): the caption's character is that of
        the image, and so is every trait that it states.
    """
    described = [
        caption(label, row, generator)
        for label, row in zip(labels.tolist(), traits.tolist(), strict=True)
    ]
    tokens = tokenize([text for text, _ in described])
    stated = torch.tensor([mask for _, mask in described])
    agree = (traits[:, None] == traits[None]) | ~stated[None]
    return tokens, agree.all(-1) & (labels[:, None] == labels[None])


def vocabulary() -> Tensor:
    """Return the ids of all tokens that captions can contain, ascending."""
    words = [word for trait in TRAITS for word in trait]
    return tokenize([*TEMPLATES, *words, *NAMES, "digit", "letter"]).unique()
