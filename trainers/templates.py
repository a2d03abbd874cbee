"""Hand-written templates for class names, and their features in the frozen text tower.

Source of the templates: the notebook Prompt_Engineering_for_ImageNet of CLIP, which has 80.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

import clip
from trainers.features import FrozenFeatures, digest

# those that PromptSRC averages
IMAGENET_TEMPLATES = (
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
)

# those that CoOp's zero-shot baseline averages
IMAGENET_TEMPLATES_SELECT = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def encode_templates(
    features: FrozenFeatures, classnames: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Encode each class name in each template, or read what an earlier run has encoded.

    Returns:
        (templates, classes, embed_dim), not normalised.
    """
    names = [name.replace("_", " ") for name in classnames]
    texts = [[template.format(name) for name in names] for template in templates]
    tokens = torch.stack([clip.tokenize(of_template) for of_template in texts])

    @torch.no_grad()
    def encode() -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            # a template at a time: its texts share a prefix
            parts = [clip.encode_text(features.backbone, t) for t in tokens.to(features.device)]
        return torch.cat(parts)

    encoded = features.get({"tokens": digest([("tokens", tokens.flatten(0, 1))])}, encode)
    return encoded.to(features.device).unflatten(0, (len(templates), len(names)))


def template_features(
    features: FrozenFeatures, classnames: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Average the normalised features of some templates.

    Source: Radford et al., 2021, section 3.1.4.

    Returns:
        (classes, embed_dim), normalised.
    """
    encoded = F.normalize(encode_templates(features, classnames, templates), dim=-1)
    return F.normalize(encoded.mean(dim=0), dim=-1)
