"""CLIP backbones, their tokenizer, and text encoding for prompts that are tensors.

Models are those of open_clip; this package finds their weights, adds the embedded "tiny" model and
encodes learned prompts. It knows no trainer.
"""

from clip.load import WeightsNotFoundError, load
from clip.text import (
    UnsupportedBackboneError,
    compute_dtype,
    embed_tokens,
    encode_prompts,
    encode_text,
)
from clip.tokenizer import PromptTooLongError, tokenize

__all__ = [
    "PromptTooLongError",
    "UnsupportedBackboneError",
    "WeightsNotFoundError",
    "compute_dtype",
    "embed_tokens",
    "encode_prompts",
    "encode_text",
    "load",
    "tokenize",
]
