"""Attaching quantizers to the parameters of a module, stepping them, and taking them off."""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, Optional, Tuple, TypeVar

from torch import nn
from torch.nn.utils import parametrize

from .clustering import INTERVAL, KL_THRESHOLD, adapt_
from .errors import (
    AlreadyQuantizedError,
    InvalidOptionError,
    NoParameterError,
    TiedParameterError,
)
from .quantizer import Quantizer
from .rounding import Rounding
from .sites import Attached, Site, attached_to, quantized, sites
from .state import add_hooks, remove_hooks

M = TypeVar("M", bound=nn.Module)


def quantize_(
    module: M,
    bits: int = 1,
    params: Optional[str] = None,
    normalize: bool = True,
    interval: int = INTERVAL,
    kl_threshold: float = KL_THRESHOLD,
    codebook: str = "kmeans",
) -> M:
    """Quantizes parameters of `module` in place and fits their codebooks.

    `module.weight` then yields the quantized tensor with a straight-through gradient. Parameters
    keep their identity, so an optimizer that was built before goes on moving the latent weights;
    call `step_` after each of its steps. A state_dict of the plain module still loads, and the
    codebooks are fitted to it. The other trainable parameters are rounded to half precision in the
    same way, because that is how `pack` stores them.

    Args:
        module: any module; trainable parameters (requires_grad) of it are quantized.
        bits: 1 to 8; a codebook has 2^bits centroids.
        params: regular expression, searched in qualified names such as "prompt_learner.ctx".
            None: every trainable parameter with at least two dimensions.
        normalize: whether codebooks follow the mean and standard deviation of the weights.
        interval: steps between two fits at least.
        kl_threshold: divergence in nats above which a codebook is fitted again.
        codebook: "kmeans" or "uniform".

    Returns:
        The same module.

    Raises:
        InvalidOptionError, NoParameterError, AlreadyQuantizedError, TiedParameterError: before
            anything is changed.
        NonFiniteWeightsError, HalfPrecisionOverflowError: naming the parameter.
    """
    fitted = []
    for site in _select(module, params):
        quantizer = Quantizer(bits, normalize, interval, kl_threshold, codebook, site.name)
        quantizer.to(site.weight.device).fit_(site.weight)
        fitted.append((site, quantizer))
    for site, quantizer in fitted:  # all could be fitted: from here on nothing fails
        _detach(site, keep_latent=True)  # an earlier call may have left it rounded
        _attach(site, quantizer)
    for site in sites(module):
        if site.attached is None and site.weight.requires_grad:
            _attach(site, Rounding())
    return module


def step_(module: nn.Module) -> int:
    """Call after each optimizer step: the only place where codebooks change while training.

    Under nn.DataParallel pass the wrapped module, not the wrapper's replicas.

    Returns:
        Number of codebooks that constrained adaptive clustering fitted again.
    """
    return adapt_(quantized(module))


def refit_(module: M) -> M:
    """Fits all codebooks to the latent weights at once, whatever constrained clustering would say.

    For weights that were set from outside, such as the moving average of a teacher. Loading a
    state_dict needs no such call.

    Raises:
        NonFiniteWeightsError, HalfPrecisionOverflowError: naming the parameter.
    """
    for quantizer, weight in quantized(module):
        quantizer.fit_(weight)
    return module


def named_quantizers(module: nn.Module) -> Iterator[Tuple[str, Quantizer]]:
    """Yields the qualified plain name of each quantized parameter and its quantizer."""
    for site in sites(module):
        if site.quantizer is not None:
            yield site.name, site.quantizer


def remove_(module: M, keep_latent: bool = False) -> M:
    """Takes quantizers and roundings off; leaves plain parameters, the same objects as before.

    Args:
        module: a module, quantized or not.
        keep_latent: leave the latent weights in place of the quantized ones.
    """
    for site in sites(module):
        _detach(site, keep_latent)
    return module


def _attach(site: Site, attached: Attached) -> None:
    _own_class(site.owner)
    add_hooks(site.owner)
    parametrize.register_parametrization(site.owner, site.attribute, attached)


def _detach(site: Site, keep_latent: bool) -> None:
    if site.attached is not None:
        _own_class(site.owner)
        parametrize.remove_parametrizations(
            site.owner, site.attribute, leave_parametrized=not keep_latent
        )
        if not any(attached_to(site.owner)):
            remove_hooks(site.owner)


def _select(module: nn.Module, params: Optional[str]) -> List[Site]:
    trainable = [site for site in sites(module) if site.weight.requires_grad]
    if params is None:
        chosen = [site for site in trainable if site.weight.dim() >= 2]
    else:
        try:
            pattern = re.compile(params)
        except (re.error, TypeError) as error:
            raise InvalidOptionError(
                f"params must be a regular expression, got {params!r}: {error}"
            ) from error
        chosen = [site for site in trainable if pattern.search(site.name)]
    if not chosen:
        wanted = "with two or more dimensions" if params is None else f"matching {params!r}"
        names = ", ".join(f"{site.name} {tuple(site.weight.shape)}" for site in trainable)
        raise NoParameterError(
            f"{type(module).__name__} has no trainable parameter {wanted}; "
            f"trainable are: {names or 'none (requires_grad is False everywhere)'}"
        )
    again = [site.name for site in chosen if site.quantizer is not None]
    if again:
        raise AlreadyQuantizedError(
            f"quantized already: {', '.join(again)}; call remove_ first or narrow `params`"
        )
    names_of: Dict[int, List[str]] = {}
    for site in trainable:
        names_of.setdefault(id(site.weight), []).append(site.name)
    for site in chosen:
        if len(names_of[id(site.weight)]) > 1:
            raise TiedParameterError(
                f"one parameter under several names: {', '.join(names_of[id(site.weight)])}; "
                "untie them or leave them out with `params`"
            )
    return chosen


def _own_class(module: nn.Module) -> None:
    """Separates a parametrized module's class from that of its deep copies.

    Parametrizations are properties of a class made for one module; copy.deepcopy shares that
    class, and changing it for one copy would break the other.
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
