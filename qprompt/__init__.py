"""QPrompt: the trainable prompts of a CLIP prompt learner as b-bit codebook weights.

    quantize_(prompt_learner, bits=1)           # after the optimizer is built
    loss.backward(); optimizer.step()
    step_(prompt_learner)                       # fits codebooks again when they are due
    pack(prompt_learner, "prompt.safetensors")

Source: "Quantized Prompt for Efficient Generalization of Vision-Language Models", ECCV 2024,
arXiv:2407.10704.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .public import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        """Imports the library, and with it torch, at its first use: `qprompt --help` needs none."""
        from importlib import import_module

        public = import_module(".public", __name__)
        offered = {key: getattr(public, key) for key in public.__all__}
        globals().update(offered, __all__=public.__all__)
        if name not in globals():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]
