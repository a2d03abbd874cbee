"""What `import qprompt` offers."""

from .api import (
    add_noise_,
    draw_noise_,
    named_quantizers,
    quantize_,
    quantized_at_once,
    refit_,
    remove_,
    step_,
)
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
    "quantized_at_once",
    "read_metadata",
    "refit_",
    "remove_",
    "step_",
    "unpack",
]
