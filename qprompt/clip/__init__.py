"""CLIP backbones, their tokenizer, and encoders for prompts that are tensors.

Models are those of open_clip; this package finds their weights, adds the embedded "tiny" model and
encodes learned prompts. It knows no trainer.
"""

from .context import ContextLayout, count_tokens, embed_classes
from .errors import (
    ClipError,
    PromptTooLongError,
    UnsupportedBackboneError,
    WeightsNotFoundError,
)
from .image import encode_image, vision_tower
from .logits import compare_features
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
    "ContextLayout",
    "PromptTooLongError",
    "Prompts",
    "UnsupportedBackboneError",
    "WeightsNotFoundError",
    "compare_features",
    "compute_dtype",
    "count_common",
    "count_tokens",
    "embed_classes",
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
