"""QPromptSRC: PromptSRC whose prompts live on codebooks while they train."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.promptsrc import PromptSRC


@TRAINER_REGISTRY.register()
class QPromptSRC(Quantized, PromptSRC):
    """PromptSRC with K-Means-quantized prompts (arXiv:2407.10704)."""
