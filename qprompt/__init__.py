"""QPrompt: the trainable prompts of a CLIP prompt learner as b-bit codebook weights.

    quantize_(prompt_learner, bits=1)           # after the optimizer is built
    loss.backward(); optimizer.step()
    step_(prompt_learner)                       # fits codebooks again when they are due
    pack(prompt_learner, "prompt.safetensors")

Source: "Quantized Prompt for Efficient Generalization of Vision-Language Models", ECCV 2024,
arXiv:2407.10704.
"""

from .api import add_noise_, draw_noise_, named_quantizers, quantize_, refit_, remove_, step_
from .errors import (
    HubError,
    InvalidOptionError,
    InvalidWeightsError,
    NoParameterError,
    PackedFileError,
    PackedMismatchError,
    QPromptError,
)
from .kmeans import kmeans_1d
from .packing import load_packed_, pack, payload_bytes, read_metadata, unpack
from .prompt import Prompt, from_text, load
from .quantizer import Quantizer, QuantizerOptions

__version__ = "0.1.0"

__all__ = [
    "HubError",
    "InvalidOptionError",
    "InvalidWeightsError",
    "NoParameterError",
    "PackedFileError",
    "PackedMismatchError",
    "Prompt",
    "QPromptError",
    "Quantizer",
    "QuantizerOptions",
    "add_noise_",
    "draw_noise_",
    "from_text",
    "kmeans_1d",
    "load",
    "load_packed_",
    "named_quantizers",
    "pack",
    "payload_bytes",
    "quantize_",
    "read_metadata",
    "refit_",
    "remove_",
    "step_",
    "unpack",
]
