"""Measure a tiny CLIP: ``python -m clip.tiny.evaluate [WEIGHTS]``.

Zero-shot accuracy on scikit-learn's handwritten digits, which training never sees, and on
characters in fonts that were held out of training.
"""

from __future__ import annotations

import argparse

import torch
from open_clip.model import CLIP, build_model_from_openai_state_dict
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from clip.tiny.captions import DIGIT_NAMES, NAMES
from clip.tiny.render import CHARACTERS, HELD_OUT_FONTS, distort, glyph_bank
from clip.tiny.train import IMAGE_SIZE, preprocess
from qprompt.clip.text import encode_text
from qprompt.clip.tiny import WEIGHTS_PATH, state_dict
from qprompt.clip.tokenizer import tokenize


def digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits as images (1797, 3, 32, 32) in [0, 1], and their labels."""
    data = load_digits()
    images = torch.from_numpy(data.images).float().div(16)[:, None]
    images = F.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic").clamp(0, 1)
    return images.expand(-1, 3, -1, -1), torch.from_numpy(data.target)


def held_out_characters(copies: int = 20) -> tuple[Tensor, Tensor]:
    """Return distorted characters in the held-out fonts, and their labels."""
    glyphs = glyph_bank(HELD_OUT_FONTS, pen=False).repeat(1, copies, 1, 1)
    labels = torch.arange(len(CHARACTERS)).repeat_interleave(glyphs.shape[1])
    images, _ = distort(glyphs.flatten(0, 1), IMAGE_SIZE, torch.Generator().manual_seed(0))
    return images, labels


@torch.no_grad()
def accuracy(model: CLIP, images: Tensor, labels: Tensor, prompts: list[str]) -> float:
    """Return the zero-shot accuracy in percent, prompt i being class i."""
    image = model.encode_image(preprocess(images), normalize=True)
    text = F.normalize(encode_text(model, tokenize(prompts)), dim=-1)
    return 100 * (image @ text.t()).argmax(1).eq(labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", nargs="?", default=WEIGHTS_PATH)
    model = build_model_from_openai_state_dict(
        state_dict(parser.parse_args().weights), cast_dtype=torch.float32
    ).float()
    images, labels = digits()
    prompts = [f"a photo of the digit {name}." for name in DIGIT_NAMES]
    characters = [f"a photo of a {name}." for name in NAMES]
    base = labels < 5
    measured = {
        "digits, all ten classes": (images, labels, prompts),
        "digits, base (zero to four)": (images[base], labels[base], prompts[:5]),
        "digits, new (five to nine)": (images[~base], labels[~base] - 5, prompts[5:]),
        "36 characters, held-out fonts": (*held_out_characters(), characters),
    }
    for title, data in measured.items():
        print(f"{title:32}{accuracy(model, *data):.1f}%")


if __name__ == "__main__":
    main()
