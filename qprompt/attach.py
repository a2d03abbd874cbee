"""Attaching quantizers to the parameters of a module, stepping them, and taking them off."""

from __future__ import annotations

import copy
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple, TypeVar, Union

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
from .rounding import Rounding

M = TypeVar("M", bound=nn.Module)
Attached = Union[Quantizer, Rounding]
LOAD_HOOK = "_qprompt_load_hook"


class Site(NamedTuple):
    """One parameter of a module: `owner.attribute`, its (latent) tensor, what is attached to it."""

    name: str
    owner: nn.Module
    attribute: str
    weight: nn.Parameter
    attached: Optional[Attached] = None

    @property
    def quantizer(self) -> Optional[Quantizer]:
        return self.attached if isinstance(self.attached, Quantizer) else None


def sites(module: nn.Module) -> List[Site]:
    """All parameters under their plain names, quantized or not, in the order of registration."""
    found = []
    for path, owner in module.named_modules():
        if isinstance(owner, (parametrize.ParametrizationList, Quantizer, Rounding)):
            continue
        prefix = path + "." if path else ""
        for attribute, weight in owner.named_parameters(recurse=False):
            found.append(Site(prefix + attribute, owner, attribute, weight))
        for attribute, attached, weight in _attached(owner):
            found.append(Site(prefix + attribute, owner, attribute, weight, attached))
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
    return sum(adapt_(site.quantizer, site.weight) for site in sites(module) if site.quantizer)


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
    if LOAD_HOOK not in vars(site.owner):
        _register_load_hook(site.owner)
    parametrize.register_parametrization(site.owner, site.attribute, attached)


def _detach(site: Site, keep_latent: bool) -> None:
    if site.attached is not None:
        _own_class(site.owner)
        parametrize.remove_parametrizations(
            site.owner, site.attribute, leave_parametrized=not keep_latent
        )
        if not any(_attached(site.owner)):
            vars(site.owner).pop(LOAD_HOOK).remove()


def _attached(owner: nn.Module) -> Iterator[Tuple[str, Attached, nn.Parameter]]:
    if parametrize.is_parametrized(owner):
        for attribute, chain in owner.parametrizations.items():  # type: ignore[union-attr,operator]
            if isinstance(chain[0], (Quantizer, Rounding)):
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
    for attribute, attached, weight in _attached(owner):
        original = f"{prefix}parametrizations.{attribute}.original"
        if original not in state and prefix + attribute in state:
            state[original] = state.pop(prefix + attribute)
        base = f"{prefix}parametrizations.{attribute}.0."
        if not isinstance(attached, Quantizer):
            continue
        saved = state.get(base + "normalized")
        if saved is not None and bool(saved) != attached.normalize:
            raise InvalidOptionError(
                f"'{attached.name}' was trained with normalize={bool(saved)}, which is part of "
                "what its codebook means; quantize with the same"
            )
        if base + "codebook" not in state and isinstance(state.get(original), Tensor):
            fresh = copy.deepcopy(attached)
            fresh.fits.zero_()
            fresh.fit_(state[original].to(weight))
            state.update(fresh.state_dict(prefix=base))
