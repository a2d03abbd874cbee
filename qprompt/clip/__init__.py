"""CLIP backbones, their tokenizer, and encoders for prompts that are tensors.

Models are those of open_clip; this package finds their weights, adds the embedded "tiny" model and
encodes learned prompts. It knows no trainer.
"""

from .errors import (
    ClipError,
    PromptTooLongError,
    UnsupportedBackboneError,
    WeightsNotFoundError,
)
from .image import encode_image, vision_tower
from .prompts import Prompts
from .text import (
    compute_dtype,
    count_common,
    embed_dim,
    embed_texts,
    embed_tokens,
    encode_prompts,
    encode_text,
    text_tower,
)
from .tokenizer import tokenize
from .weights import load

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
