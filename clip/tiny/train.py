"""Train the embedded tiny CLIP from scratch: ``python -m clip.tiny.train``.

Contrastive learning of rendered characters against captions (Radford et al., 2021, section 2.3),
with one caption per character in each step, so that the image-to-text half of the loss is an
ordinary cross-entropy over all characters. Deterministic for a given seed and torch version.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torchvision.transforms.functional import normalize
from tqdm import tqdm

from clip.text import encode_text
from clip.tiny import save
from clip.tiny.render import CHARACTERS, distort, glyph_bank
from clip.tokenizer import tokenize

IMAGE_SIZE = 32
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAMES = DIGIT_NAMES + tuple(CHARACTERS[10:])
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {} {}.",
    "a photo of the {}.",
    "an image of the {} {}.",
    "a picture of a {}.",
    "the {} {}.",
    "a blurry photo of the {} {}.",
    "a handwritten {}.",
    "a printed {} {}.",
    "{}",
)


def captions(template: str) -> list[str]:
    """Fill one template with every character's kind ("digit", "letter") and name."""
    kinds = ["digit"] * 10 + ["letter"] * 26
    if template.count("{}") == 2:
        return [template.format(kind, name) for kind, name in zip(kinds, NAMES, strict=True)]
    return [template.format(name) for name in NAMES]


def caption_tokens() -> torch.Tensor:
    """Token ids (templates, characters, 77) of every caption."""
    return torch.stack([tokenize(captions(template)) for template in TEMPLATES])


def preprocess(images: torch.Tensor) -> torch.Tensor:
    """Normalise images in [0, 1] with the channel means and deviations of CLIP."""
    return normalize(images, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def new_model() -> CLIP:
    """A randomly initialised CLIP in OpenAI's layout: 32 x 32 pixels, width 128, 4 + 4 layers."""
    return CLIP(
        embed_dim=128,
        vision_cfg=CLIPVisionCfg(
            layers=4, width=128, head_width=64, patch_size=8, image_size=IMAGE_SIZE
        ),
        text_cfg=CLIPTextCfg(width=128, heads=2, layers=4),
        quick_gelu=True,
    )


def train(steps: int, batch: int, learning_rate: float, seed: int) -> CLIP:
    """Train a tiny CLIP on freshly distorted glyphs.

    Args:
        steps: number of optimizer steps.
        batch: images in each step.
        learning_rate: peak of the cosine schedule, after 5% of linear warm-up (AdamW).
        seed: seeds the initialisation and every image.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = new_model().train()
    glyphs = glyph_bank()
    tokens = caption_tokens()
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda i: min((i + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * i / steps)),
    )
    classes = torch.arange(len(CHARACTERS))
    bar = tqdm(range(steps), desc="tiny CLIP", mininterval=5)
    for _ in bar:
        labels = torch.randint(len(CHARACTERS), (batch,), generator=generator)
        fonts = torch.randint(glyphs.shape[1], (batch,), generator=generator)
        images = preprocess(distort(glyphs[labels, fonts], IMAGE_SIZE, generator))
        templates = torch.randint(len(TEMPLATES), (len(CHARACTERS),), generator=generator)
        text = F.normalize(encode_text(model, tokens[templates, classes]), dim=-1)
        logits = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ text.t()
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("output/tiny/weights.safetensors"))
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists: move it away or choose another --output")
    model = train(args.steps, args.batch, args.learning_rate, args.seed)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save(model.state_dict(), caption_tokens().unique(), args.output)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
