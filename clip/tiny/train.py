"""Train the embedded tiny CLIP from scratch: ``python -m clip.tiny.train``.

Contrastive learning of rendered characters against captions (Radford et al., 2021, section 2.3). A
caption may be true of several images of a batch; the target is then shared among them.
Deterministic for a given seed, torch version and number of threads.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import normalize
from tqdm import tqdm

from clip.tiny.captions import captions, vocabulary
from clip.tiny.render import CHARACTERS, distort, glyph_bank
from qprompt.clip.text import encode_text
from qprompt.clip.tiny import save

IMAGE_SIZE = 32


def preprocess(images: Tensor) -> Tensor:
    """Normalise images in [0, 1] with the channel means and deviations of CLIP."""
    return normalize(images, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def new_model() -> CLIP:
    """Return a new CLIP in OpenAI's layout: 32 x 32 pixels, width 128, 4 + 4 layers."""
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
        seed: seeds the initialisation, every image and every caption.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = new_model().train()
    glyphs = glyph_bank()
    caption_generator = random.Random(seed)
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
    bar = tqdm(range(steps), desc="tiny CLIP", mininterval=5)
    for _ in bar:
        labels = torch.randint(len(CHARACTERS), (batch,), generator=generator)
        fonts = torch.randint(glyphs.shape[1], (batch,), generator=generator)
        images, traits = distort(glyphs[labels, fonts], IMAGE_SIZE, generator)
        tokens, true = captions(labels, traits, caption_generator)
        image = model.encode_image(preprocess(images), normalize=True)
        text = F.normalize(encode_text(model, tokens), dim=-1)
        logits = model.logit_scale.exp() * image @ text.t()
        target = true.float()
        loss = F.cross_entropy(logits, target / target.sum(1, keepdim=True))
        loss = loss + F.cross_entropy(logits.t(), target.t() / target.sum(0)[:, None])
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
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("output/tiny/weights.safetensors"))
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists: move it away or choose another --output")
    model = train(args.steps, args.batch, args.learning_rate, args.seed)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save(model.state_dict(), vocabulary(), args.output)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
