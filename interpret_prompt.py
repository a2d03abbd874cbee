"""Print the words nearest to each learned context vector, as CoOp's script of this name does.

    python interpret_prompt.py output/prompt_learner/prompt.safetensors 3

Reads checkpoints, plain or quantized, and packed prompts; distances are Euclidean.
"""

from __future__ import annotations

import argparse
import sys

from torch import Tensor

import clip
import qprompt
from dassl.engine.results import trained_with
from qprompt.use.checkpoint import learned_values, read_checkpoint, restore_learner
from qprompt.use.words import nearest_words


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("fpath", help="checkpoint (model.pth.tar-50) or packed prompt")
    parser.add_argument("topk", type=int, help="number of words for each vector")
    parser.add_argument("--backbone", help="default: the one that was trained on, else ViT-B/16")
    args = parser.parse_args()
    try:
        ctx, backbone = read_context(args.fpath)
        interpret(ctx, args.backbone or backbone, args.topk)
    except (OSError, clip.ClipError, qprompt.QPromptError) as error:
        sys.exit(f"error: {error}")


def read_context(path: str) -> tuple[Tensor, str]:
    """Return the context (n_ctx, width) or (classes, n_ctx, width), and its backbone's name."""
    backbone = "ViT-B/16"
    if path.endswith(".safetensors"):
        prompt = qprompt.load(path)
        tensors, backbone = prompt.tensors, prompt.backbone or backbone
    else:
        if run := trained_with(path):
            backbone = run["MODEL"]["BACKBONE"]["NAME"]
        tensors = learned_values(restore_learner(read_checkpoint(path)))
    for name in ("ctx", "prompt_learner.ctx"):
        if name in tensors:
            return tensors[name].float(), backbone
    raise qprompt.InvalidOptionError(
        f"{path} holds no context (ctx), only {', '.join(tensors) or 'nothing'}"
    )


def interpret(ctx: Tensor, backbone: str, topk: int) -> None:
    """Print ``topk`` words and distances for each vector."""
    model = clip.load(backbone)
    for label, vectors in enumerate(ctx if ctx.ndim == 3 else [ctx]):
        if ctx.ndim == 3:
            print(f"Class {label}")
        for number, words in enumerate(nearest_words(vectors, model, topk), 1):
            print(f"{number}: {[word for word, _ in words]} {[f'{far:.4f}' for _, far in words]}")


if __name__ == "__main__":
    main()
