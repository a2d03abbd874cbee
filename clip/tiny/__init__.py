"""What made the embedded tiny CLIP, which ``qprompt.clip.tiny`` loads."""

from qprompt.clip.tiny import WEIGHTS_PATH, save, state_dict

__all__ = ["WEIGHTS_PATH", "save", "state_dict"]
