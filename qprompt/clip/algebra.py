"""Parts of a transformer layer in a cheaper order of the same operations, for frozen weights.

Equal to open_clip's layers up to rounding; nothing is approximated.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F

QUICK_GELU = 1.702  # a of QuickGELU(x) = x sigmoid(a x)


def run_mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Run a feed-forward part, a frozen one with QuickGELU as :class:`_QuickGELUPart`.

    Args:
        layers: linear, QuickGELU, linear, without gradients; others run as they are.
        x: (..., width).
    """
    first, activation, second = layers
    if (
        isinstance(first, nn.Linear)
        and isinstance(activation, QuickGELU)
        and isinstance(second, nn.Linear)
        and not first.weight.requires_grad
    ):
        weights = first.weight, first.bias, second.weight, second.bias
        return _QuickGELUPart.apply(x.flatten(0, -2), *weights).view_as(x)
    return layers(x)


class _QuickGELUPart(torch.autograd.Function):
    """Linear, QuickGELU, linear: QuickGELU as silu with both factors inside the products.

        x sigmoid(a x) = silu(a x) / a
        W_2 QuickGELU(W_1 x + b_1) + b_2 = (1/a) W_2 silu(h) + b_2,    h = a W_1 x + a b_1
        dL/dx = W_1' (silu'(h) * W_2' dL/dy), in which the factors cancel

    That is one pass over the hidden states instead of three, one of them kept for the gradient
    instead of two, and none in the gradient but the derivative.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_1: Tensor, b_1: Tensor, w_2: Tensor, b_2: Tensor) -> Tensor:
        a = QUICK_GELU
        hidden = torch.addmm(b_1, x, w_1.t(), beta=a, alpha=a)  # (tokens, 4 width)
        ctx.save_for_backward(hidden, w_1, w_2)
        activated = F.silu(hidden, inplace=not ctx.needs_input_grad[0])
        return torch.addmm(b_2, activated, w_2.t(), alpha=1 / a)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, w_1, w_2 = ctx.saved_tensors
        w_1, w_2 = w_1.to(grad.dtype), w_2.to(grad.dtype)  # autocast is over
        grad = torch.ops.aten.silu_backward(grad @ w_2, hidden)
        return grad @ w_1, None, None, None, None


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
