"""The encoders of ``qprompt.clip``, beside OpenAI's modules of the package ``clip``.

``clip.clip``, ``clip.model`` and ``clip.simple_tokenizer`` are for others' trainers; ``clip.tiny``
holds what made the embedded model.
"""

from qprompt.clip import *  # noqa: F403
from qprompt.clip import __all__ as __all__
