"""The tokenizer in the place of OpenAI's; see clip/model.py."""

from open_clip.tokenizer import SimpleTokenizer

__all__ = ["SimpleTokenizer"]
