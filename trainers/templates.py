"""Hand-written templates for class names, and their features in the frozen text tower.

Source of the templates: the notebook Prompt_Engineering_for_ImageNet of CLIP, which has 80.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn import functional as F

import clip
from trainers.features import FrozenFeatures, digest

IMAGENET_TEMPLATES = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
# those that CoOp's zero-shot baseline averages
IMAGENET_TEMPLATES_SELECT = tuple(template("{}") for template in SIMPLE_IMAGENET_TEMPLATES)


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
