"""Templates for the classes of ImageNet as lists, in the place of upstream's; see templates.py."""

from trainers import templates

IMAGENET_TEMPLATES = list(templates.IMAGENET_TEMPLATES)
IMAGENET_TEMPLATES_SELECT = list(templates.IMAGENET_TEMPLATES_SELECT)
