"""OpenAI's templates for the classes of ImageNet, in upstream's names; open_clip has them."""

from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

IMAGENET_TEMPLATES = [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
IMAGENET_TEMPLATES_SELECT = [template("{}") for template in SIMPLE_IMAGENET_TEMPLATES]
