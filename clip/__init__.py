"""CLIP backbones, their tokenizer, and encoders for prompts that are tensors.

Models are those of open_clip; this package finds their weights, adds the embedded "tiny" model and
encodes learned prompts. It knows no trainer.
"""

from clip.errors import (
    ClipError,
    PromptTooLongError,
    UnsupportedBackboneError,
    WeightsNotFoundError,
)
from clip.image import encode_image, vision_tower
from clip.prompts import Prompts
from clip.text import (
    compute_dtype,
    count_common,
    embed_dim,
    embed_texts,
    embed_tokens,
    encode_prompts,
    encode_text,
    text_tower,
)
from clip.tokenizer import tokenize
from clip.weights import load

__all__ = [
    "ClipError",
    "PromptTooLongError",
    "Prompts",
    "UnsupportedBackboneError",
    "WeightsNotFoundError",
    "compute_dtype",
    "count_common",
    "embed_dim",
    "embed_texts",
    "embed_tokens",
    "encode_image",
    "encode_prompts",
    "encode_text",
    "load",
    "text_tower",
    "tokenize",
    "vision_tower",
]
