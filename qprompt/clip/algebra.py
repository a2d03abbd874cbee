"""Parts of a transformer layer in a cheaper order of the same operations, for frozen weights.

Equal to open_clip's layers up to rounding; nothing is approximated.
"""

from __future__ import annotations

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

QUICK_GELU = 1.702  # a of QuickGELU(x) = x sigmoid(a x)


def run_mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Run a feed-forward part, its QuickGELU as silu with both factors inside the products.

        x sigmoid(a x) = silu(a x) / a
        W_2 QuickGELU(W_1 x + b_1) + b_2 = (1/a) W_2 silu(a W_1 x + a b_1) + b_2

    That is one pass over the hidden states instead of three, and one of them kept for the gradient
    instead of two.

    Args:
        layers: linear, QuickGELU, linear; others run as they are.
        x: (..., width).
    """
    first, activation, second = layers
    if not (
        isinstance(first, nn.Linear)
        and isinstance(activation, QuickGELU)
        and isinstance(second, nn.Linear)
    ):
        return layers(x)
    a = QUICK_GELU
    # (tokens, 4 width)
    hidden = torch.addmm(first.bias, x.flatten(0, -2), first.weight.t(), beta=a, alpha=a)
    hidden = F.silu(hidden, inplace=not hidden.requires_grad)
    return torch.addmm(second.bias, hidden, second.weight.t(), alpha=1 / a).view_as(x)


def attend_from_first_token(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Return what the first token gathers, without keys and values of all tokens.

        K = X W_k' + 1 b_k'    q K' = (q W_k) X' + (q b_k) 1', whose last term softmax ignores
        V = X W_v' + 1 b_v'    w V = (w X) W_v' + b_v', since attention weights w sum to 1

    Args:
        attention: of a residual attention block.
        x: (n, length, width), normalised.

    Returns:
        (n, heads, head width), before the output projection.
    """
    heads = attention.num_heads
    w_q, w_k, w_v = attention.in_proj_weight.unflatten(0, (3, heads, -1))  # (heads, head, width)
    b_q, _, b_v = attention.in_proj_bias.unflatten(0, (3, heads, -1))  # (heads, head width)
    q = (torch.einsum("nw,hdw->nhd", x[:, 0], w_q) + b_q) * w_q.shape[1] ** -0.5
    scores = torch.einsum("nhd,hdw->nhw", q, w_k) @ x.transpose(1, 2)  # (n, heads, length)
    mixture = scores.softmax(dim=-1) @ x  # (n, heads, width)
    return torch.einsum("nhw,hdw->nhd", mixture, w_v) + b_v
