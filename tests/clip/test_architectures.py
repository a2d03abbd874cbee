"""Which of open_clip's architectures take prompts, and that they encode as open_clip does."""

import functools
import json
import re

import open_clip
import pytest
import torch

import clip
from qprompt.clip.tokenizer import VOCABULARY_SIZE

# docs/backbones.md says the same
TEXT_AND_IMAGE = re.compile(r"ViT-(?!.*(SigLIP|CLIPA|worldwide))")
TEXT = re.compile(r"RN|EVA|ViTamin|MobileCLIP2?-B|PE-Core|convnext|swin|vit_")
CONFIGS = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
OURS = {name: cfg for name, cfg in CONFIGS.items() if "hf_model_name" not in cfg["text_cfg"]}


def small(config):
    """The architecture with two narrow layers in each tower, and timm's smallest for timm's."""
    config = json.loads(json.dumps(config))
    config["text_cfg"] |= {"layers": 2, "width": 64, "heads": 2}
    vision, patch = config["vision_cfg"], config["vision_cfg"].get("patch_size", 16)
    if "timm_model_name" in vision:
        config["vision_cfg"] = {"timm_model_name": "test_vit", "image_size": 160}
    elif isinstance(vision["layers"], int):
        vision |= {"layers": 2, "width": 64, "head_width": 32, "image_size": 2 * patch}
    else:
        vision |= {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {"layers": 2, "width": 64, "heads": 2}
    return {**config, "embed_dim": 64}


@functools.cache
def build(config):
    """A model of a configuration in JSON, without memory where it has another vocabulary."""
    config = json.loads(config)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    kind = open_clip.CoCa if "multimodal_cfg" in config else kind
    other = config["text_cfg"]["vocab_size"] != VOCABULARY_SIZE
    torch.manual_seed(0)
    with torch.device("meta" if other else "cpu"):
        return kind(**config).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", OURS)
def test_prompts_are_taken_and_encoded_as_open_clip_does_or_refused(name):
    model = build(json.dumps(small(OURS[name])))
    tokens = clip.tokenize(["a photo of a dog.", "an x"])
    if not (TEXT_AND_IMAGE.match(name) or TEXT.match(name)):
        with pytest.raises(clip.UnsupportedBackboneError, match="choose a CLIP architecture"):
            clip.encode_text(model, tokens)
        return
    length = OURS[name]["text_cfg"].get("context_length", 77)
    expected = model.encode_text(tokens[:, :length])
    torch.testing.assert_close(clip.encode_text(model, tokens), expected, rtol=1e-4, atol=1e-4)

    size = model.visual.image_size
    images = torch.randn(2, 3, *(size if isinstance(size, tuple) else (size, size)))
    expected = model.encode_image(images)
    torch.testing.assert_close(clip.encode_image(model, images), expected, rtol=1e-4, atol=1e-4)
    none, learned = torch.empty(0, 1, 64), torch.randn(2, 64)
    prompts = clip.Prompts(none, none, (), image=learned, deep_image=(learned,))
    if TEXT_AND_IMAGE.match(name):
        assert clip.encode_image(model, images, prompts).shape == expected.shape
    else:
        with pytest.raises(clip.UnsupportedBackboneError, match="takes no learned prompts"):
            clip.encode_image(model, images, prompts)


def test_a_prompt_longer_than_the_tower_is_named():
    model = build(json.dumps(small(OURS["PE-Core-B-16"])))
    with pytest.raises(clip.PromptTooLongError, match="42 tokens.*takes 32"):
        clip.encode_text(model, clip.tokenize(" ".join(["x"] * 40)))
