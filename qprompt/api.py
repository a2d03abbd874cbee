"""Quantize the parameters of a module, step their codebooks, and take the quantizers off.

Or add noise to them instead, for comparison.
"""

from __future__ import annotations

import re
from typing import ContextManager, Dict, Iterator, List, Optional, Tuple, TypeVar

from torch import nn

from .assignment import at_once
from .clustering import adapt_
from .errors import InvalidOptionError, NoParameterError
from .parametrization import Weight, attach_, detach_, named_weights, quantized_weights
from .quantizer import INTERVAL, KL_THRESHOLD, Noise, Quantizer, QuantizerOptions, Rounding

M = TypeVar("M", bound=nn.Module)


def quantize_(
    module: M,
    bits: int = 1,
    params: Optional[str] = None,
    normalize: bool = True,
    interval: int = INTERVAL,
    kl_threshold: float = KL_THRESHOLD,
    codebook: str = "kmeans",
    half_latents: bool = False,
    through_moments: bool = False,
) -> M:
    """Quantizes parameters of `module` in place and fits their codebooks.

    `module.weight` then yields the quantized tensor with a straight-through gradient, in the dtype
    that it had. Parameters keep their identity, so an optimizer that was built before goes on
    moving the latent weights, float32 also where they were in half precision; call `step_` after
    each of its steps. A state_dict of the plain module still loads, and the codebooks are fitted to
    it. The other trainable parameters are rounded to half precision in the same way, because that
    is how `pack` stores them.

    Args:
        module: any module; trainable parameters (requires_grad) of it are quantized.
        params: regular expression, searched in qualified names such as "prompt_learner.ctx".
            None: every trainable parameter with at least two dimensions.
        bits and all others: see `QuantizerOptions`.

    Returns:
        The same module.

    Raises:
        InvalidOptionError, NoParameterError: before anything is changed.
        InvalidWeightsError: naming the parameter.
    """
    options = QuantizerOptions(
        bits, normalize, interval, kl_threshold, codebook, half_latents, through_moments
    )
    fitted = []
    for weight in _select(module, params):
        quantizer = Quantizer(options, weight.name, weight.dtype)
        quantizer.to(weight.latent.device).fit_(weight.latent)
        fitted.append((weight, quantizer))
    for weight, quantizer in fitted:  # all could be fitted: from here on nothing fails
        attach_(weight, quantizer)
    for weight in named_weights(module):
        if weight.attachment is None and weight.latent.requires_grad:
            attach_(weight, Rounding(weight.dtype))
    return module


def step_(module: nn.Module) -> int:
    """Call after each optimizer step: the only place where codebooks change while training.

    Under nn.DataParallel pass the wrapped module, not the wrapper's replicas.

    Returns:
        Number of codebooks that constrained adaptive clustering fitted again.
    """
    return adapt_(quantized_weights(module))


def quantized_at_once(module: nn.Module) -> ContextManager[None]:
    """Context in which parameters of one shape are quantized together, for fewer kernels on a GPU.

    For the forward pass of a learner with many parameters: weights and codebooks must not change
    within it. Nothing else differs, and on a CPU nothing at all.
    """
    return at_once(quantized_weights(module))


def refit_(module: M) -> M:
    """Fits all codebooks to the latent weights at once, whatever constrained clustering would say.

    For weights that were set from outside, such as the moving average of a teacher. Loading a
    state_dict needs no such call.

    Raises:
        InvalidWeightsError: naming the parameter.
    """
    for quantizer, latent in quantized_weights(module):
        quantizer.fit_(latent)
    return module


def named_quantizers(module: nn.Module) -> Iterator[Tuple[str, Quantizer]]:
    """Yields the qualified plain name of each quantized parameter and its quantizer."""
    for weight in named_weights(module):
        if weight.quantizer is not None:
            yield weight.name, weight.quantizer


def add_noise_(module: M, std: float, params: Optional[str] = None, relative: bool = False) -> M:
    """Adds Gaussian noise to parameters of `module` while it trains; state_dicts stay plain.

    Call `draw_noise_` before each training step.

    Args:
        module, params: as for `quantize_`.
        std: of the noise, or of noise over weights if `relative`; 0: none.

    Raises:
        InvalidOptionError, NoParameterError: before anything is changed.
    """
    selected = [(weight, Noise(std, relative, weight.latent)) for weight in _select(module, params)]
    for weight, noise in selected:
        attach_(weight, noise)
    return module


def draw_noise_(module: nn.Module) -> None:
    """Draws new noise, the same for all passes until the next call."""
    for weight in named_weights(module):
        if isinstance(weight.attachment, Noise):
            weight.attachment.draw_(weight.latent)


def remove_(module: M, keep_latent: bool = False) -> M:
    """Takes quantizers, roundings and noise off; leaves the plain parameters, the same objects.

    Args:
        module: a module, quantized or not.
        keep_latent: leave the latent weights in place of the quantized ones.
    """
    for weight in named_weights(module):
        if weight.attachment is not None:
            detach_(weight, keep_latent)
    return module


def _select(module: nn.Module, params: Optional[str]) -> List[Weight]:
    trainable = [weight for weight in named_weights(module) if weight.latent.requires_grad]
    if params is None:
        selected = [weight for weight in trainable if weight.latent.dim() >= 2]
    else:
        try:
            pattern = re.compile(params)
        except (re.error, TypeError) as error:
            raise InvalidOptionError(
                f"params must be a regular expression, got {params!r}: {error}"
            ) from error
        selected = [weight for weight in trainable if pattern.search(weight.name)]
    if not selected:
        wanted = "with two or more dimensions" if params is None else f"matching {params!r}"
        names = ", ".join(f"{weight.name} {tuple(weight.latent.shape)}" for weight in trainable)
        raise NoParameterError(
            f"{type(module).__name__} has no trainable parameter {wanted}; "
            f"trainable are: {names or 'none (requires_grad is False everywhere)'}"
        )
    again = [weight.name for weight in selected if weight.quantizer is not None]
    if again:
        raise InvalidOptionError(
            f"quantized already: {', '.join(again)}; call remove_ first or narrow `params`"
        )
    names_of: Dict[int, List[str]] = {}
    for weight in trainable:
        names_of.setdefault(id(weight.latent), []).append(weight.name)
    for weight in selected:
        if len(names_of[id(weight.latent)]) > 1:
            raise InvalidOptionError(
                f"one parameter under several names: {', '.join(names_of[id(weight.latent)])}; "
                "untie them or leave them out with `params`"
            )
    return selected
