"""Print the words nearest to each learned context vector, as CoOp's script of this name does.

    python interpret_prompt.py output/prompt_learner/prompt.safetensors 3

Reads checkpoints, plain or quantized, and packed prompts; distances are Euclidean.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor, nn

import clip
import qprompt
from clip.simple_tokenizer import SimpleTokenizer
from dassl.engine.results import trained_with
from dassl.utils import UserError, load_checkpoint


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
    except (OSError, UserError, clip.ClipError, qprompt.QPromptError) as error:
        sys.exit(f"error: {error}")


def read_context(path: str) -> tuple[Tensor, str]:
    """Return the context (n_ctx, width) or (classes, n_ctx, width), and its backbone's name."""
    backbone = "ViT-B/16"
    if path.endswith(".safetensors"):
        backbone = qprompt.read_metadata(path).get("backbone", backbone)
        state = qprompt.unpack(path)
    else:
        if run := trained_with(path):
            backbone = run["MODEL"]["BACKBONE"]["NAME"]
        checkpoint = load_checkpoint(path)
        state = checkpoint.get("state_dict", checkpoint)
    state = {name.removeprefix("prompt_learner."): tensor for name, tensor in state.items()}
    if "ctx" not in state and "parametrizations.ctx.0.codebook" in state:
        learner = nn.Module()
        learner.ctx = nn.Parameter(state["parametrizations.ctx.original"])
        bits = len(state["parametrizations.ctx.0.codebook"]).bit_length() - 1
        normalize = bool(state.get("parametrizations.ctx.0.normalized", True))
        qprompt.quantize_(learner, bits, normalize=normalize)
        learner.load_state_dict(state, strict=False)
        state = {"ctx": learner.ctx.detach()}
    if "ctx" not in state:
        raise UserError(f"{path} holds no context (ctx), only {', '.join(state) or 'nothing'}")
    return state["ctx"].float(), backbone


def interpret(ctx: Tensor, backbone: str, topk: int) -> None:
    """Print ``topk`` words and distances for each vector."""
    embedding = clip.text_tower(clip.load(backbone)).token_embedding.weight.detach()
    if ctx.shape[-1] != embedding.shape[1]:
        raise UserError(
            f"the context has {ctx.shape[-1]} numbers a vector and the words of {backbone} "
            f"{embedding.shape[1]}: name the backbone that it was trained on (--backbone)"
        )
    if not 1 <= topk <= len(embedding):
        raise UserError(f"topk is {topk}: it is a number of words, 1 to {len(embedding)}")
    decoder = SimpleTokenizer().decoder
    for label, vectors in enumerate(ctx if ctx.ndim == 3 else [ctx]):
        if ctx.ndim == 3:
            print(f"Class {label}")
        exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}  # products lose small distances
        distances, indices = torch.cdist(vectors, embedding, **exact).topk(topk, largest=False)
        for number, (near, far) in enumerate(zip(indices, distances, strict=True), 1):
            words = [decoder[int(i)] for i in near]
            print(f"{number}: {words} {[f'{float(d):.4f}' for d in far]}")


if __name__ == "__main__":
    main()
