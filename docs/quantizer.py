"""Draw docs/quantizer.svg: a CoOp prompt, its 1-bit codebook and what is stored of it.

PYTHONPATH=. python docs/quantizer.py    # from the repository root
"""

from pathlib import Path

import matplotlib
import torch

import qprompt

matplotlib.use("svg")
from matplotlib import pyplot as plt  # noqa: E402

GREY, BLUE, ORANGE = "#808080", "#3b82c4", "#d9730d"  # legible on white and on black


def main() -> None:
    torch.manual_seed(1)
    prompt = torch.nn.Embedding(4, 512)
    torch.nn.init.normal_(prompt.weight, std=0.02)  # CoOp's start: 4 context vectors
    latent = prompt.weight.detach().clone()
    plain = latent.half().nbytes
    qprompt.quantize_(prompt, bits=1)
    stored = qprompt.payload_bytes(prompt)
    codebook, indices = prompt.weight.detach().unique(return_inverse=True)

    plt.rcParams.update({"svg.hashsalt": "qprompt", "svg.fonttype": "path", "font.size": 10})
    plt.rcParams.update({key: GREY for key in ("text.color", "axes.edgecolor", "xtick.color")})
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
    axes[0].hist(latent.flatten().numpy(), bins=41, color=BLUE)
    axes[0].set_title(f"latent weights\n4 × 512 half floats: {plain} bytes")
    for side, colour in enumerate((BLUE, ORANGE)):
        axes[1].bar(codebook[side].item(), (indices == side).sum(), width=0.004, color=colour)
    numbers = ", ".join(f"{value:+.4f}" for value in codebook.tolist())
    axes[1].set_title(f"codebook\n{numbers}")
    axes[1].set_xlim(axes[0].get_xlim())
    colours = matplotlib.colors.ListedColormap([BLUE, ORANGE])
    axes[2].imshow(indices.view(4, 512)[:, :32], cmap=colours, aspect="auto")
    axes[2].set_title(f"1-bit indices (first 32 of 512)\nwith the codebook: {stored} bytes")
    axes[2].set_xticks([])
    for axis in axes:
        axis.set_yticks([])
        axis.set_facecolor("none")
        for side in ("left", "right", "top"):
            axis.spines[side].set_visible(False)
    axes[2].spines["bottom"].set_visible(False)
    path = Path(__file__).with_suffix(".svg")
    figure.savefig(path, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()
