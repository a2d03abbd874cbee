"""Attaching quantizers to the parameters of a module, stepping them, and taking them off."""

from __future__ import annotations

import copy
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

from .clustering import INTERVAL, KL_THRESHOLD, adapt_
from .errors import (
    AlreadyQuantizedError,
    InvalidOptionError,
    NoParameterError,
    TiedParameterError,
)
from .quantizer import Quantizer

M = TypeVar("M", bound=nn.Module)
LOAD_HOOK = "_qprompt_load_hook"


class Site(NamedTuple):
    """One parameter of a module: `owner.attribute`, its (latent) tensor and its quantizer."""

    name: str
    owner: nn.Module
    attribute: str
    weight: nn.Parameter
    quantizer: Optional[Quantizer]


def sites(module: nn.Module) -> List[Site]:
    """All parameters under their plain names, quantized or not, in the order of registration."""
    found = []
    for path, owner in module.named_modules():
        if isinstance(owner, (parametrize.ParametrizationList, Quantizer)):
            continue
        prefix = path + "." if path else ""
        for attribute, weight in owner.named_parameters(recurse=False):
            found.append(Site(prefix + attribute, owner, attribute, weight, None))
        for attribute, quantizer, weight in _quantized(owner):
            found.append(Site(prefix + attribute, owner, attribute, weight, quantizer))
    return found


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
    codebooks are fitted to it.

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
        _own_class(site.owner)
        if LOAD_HOOK not in vars(site.owner):
            _register_load_hook(site.owner)
        parametrize.register_parametrization(site.owner, site.attribute, quantizer)
    return module


def step_(module: nn.Module) -> int:
    """Call after each optimizer step: the only place where codebooks change while training.

    Under nn.DataParallel pass the wrapped module, not the wrapper's replicas.

    Returns:
        Number of codebooks that constrained adaptive clustering fitted again.
    """
    return sum(adapt_(site.quantizer, site.weight) for site in sites(module) if site.quantizer)


def named_quantizers(module: nn.Module) -> Iterator[Tuple[str, Quantizer]]:
    """Yields the qualified plain name of each quantized parameter and its quantizer."""
    for site in sites(module):
        if site.quantizer is not None:
            yield site.name, site.quantizer


def remove_(module: M, keep_latent: bool = False) -> M:
    """Takes all quantizers off and leaves plain parameters, the same objects as before.

    Args:
        module: a module, quantized or not.
        keep_latent: leave the latent weights in place of the quantized ones.
    """
    for site in sites(module):
        if site.quantizer is not None:
            _own_class(site.owner)
            parametrize.remove_parametrizations(
                site.owner, site.attribute, leave_parametrized=not keep_latent
            )
            if not any(_quantized(site.owner)):
                vars(site.owner).pop(LOAD_HOOK).remove()
    return module


def _quantized(owner: nn.Module) -> Iterator[Tuple[str, Quantizer, nn.Parameter]]:
    if parametrize.is_parametrized(owner):
        for attribute, chain in owner.parametrizations.items():  # type: ignore[union-attr,operator]
            if isinstance(chain[0], Quantizer):
                yield attribute, chain[0], chain.original


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


def _register_load_hook(owner: nn.Module) -> None:
    # The public name, without the underscore, came with torch 2.5; this one exists in all.
    register: Any = owner._register_load_state_dict_pre_hook
    setattr(owner, LOAD_HOOK, register(_accept_plain, with_module=True))


def _accept_plain(owner: nn.Module, state: Dict[str, Any], prefix: str, *_: Any) -> None:
    """Turns the entry of a plain checkpoint into latent weights and a codebook fitted to them."""
    for attribute, quantizer, weight in _quantized(owner):
        original = f"{prefix}parametrizations.{attribute}.original"
        if original not in state and prefix + attribute in state:
            state[original] = state.pop(prefix + attribute)
        base = f"{prefix}parametrizations.{attribute}.0."
        if isinstance(state.get(original), Tensor) and base + "codebook" not in state:
            fresh = copy.deepcopy(quantizer)
            fresh.fits.zero_()
            fresh.fit_(state[original].to(weight))
            state.update(fresh.state_dict(prefix=base))
