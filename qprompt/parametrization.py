"""Quantizers as parametrizations of a module's parameters: found, attached, saved and loaded.

No other file knows ``torch.nn.utils.parametrize`` and the names that it gives to tensors.

Codebooks in a state_dict: learners keep weights in more ways than a checkpoint. PromptSRC sums the
state_dicts of all epochs, each multiplied by a weight, and loads the sum; others average them in
place. Latent weights may be averaged, codebooks may not. So every entry is a floating-point tensor,
which such arithmetic takes, and a checksum of the latent weights lies beside each codebook: where
it does not belong to the weights that are loaded, the codebook is fitted to them.

The plain name is in a state_dict, too, with what the module reads: a plain trainer that drops the
entries that it does not know (strict=False) then evaluates the quantized prompt.
"""

from __future__ import annotations

import copy
import re
import zlib
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .errors import InvalidOptionError, InvalidWeightsError
from .quantizer import Attachment, Noise, Quantizer

HOOKS = "_qprompt_hooks"
CHECKSUM = "checksum"


class Weight(NamedTuple):
    """A parameter of a module: its plain name, its latent tensor, and what is attached to it."""

    name: str
    owner: nn.Module
    attribute: str
    latent: nn.Parameter
    attachment: Optional[Attachment] = None

    @property
    def quantizer(self) -> Optional[Quantizer]:
        return self.attachment if isinstance(self.attachment, Quantizer) else None

    @property
    def dtype(self) -> torch.dtype:
        """Of what the module reads."""
        return self.latent.dtype if self.attachment is None else self.attachment.dtype

    @property
    def is_stored(self) -> bool:
        """Whether it is part of a packed prompt: quantized or trainable."""
        return self.quantizer is not None or self.latent.requires_grad


def named_weights(module: nn.Module) -> List[Weight]:
    """All parameters under their plain names, quantized or not, in the order of registration."""
    weights = []
    for path, owner in module.named_modules():
        if isinstance(owner, (parametrize.ParametrizationList, Attachment)):
            continue
        prefix = path + "." if path else ""
        for attribute, latent in owner.named_parameters(recurse=False):
            weights.append(Weight(prefix + attribute, owner, attribute, latent))
        for weight in _attached(owner):
            weights.append(weight._replace(name=prefix + weight.attribute))
    return weights


def quantized_weights(module: nn.Module) -> List[Tuple[Quantizer, Tensor]]:
    """All quantizers with their latent weights, without names: fast enough for each step."""
    return [
        (chain[0], chain.original)
        for chain in module.modules()
        if isinstance(chain, parametrize.ParametrizationList) and isinstance(chain[0], Quantizer)
    ]


def attach_(weight: Weight, attachment: Attachment) -> None:
    """Lets ``attachment`` map the latent tensor, now in its dtype, to what the module reads."""
    detach_(weight, keep_latent=True)
    if HOOKS not in vars(weight.owner):
        _add_hooks(weight.owner)
    _cast_(weight.latent, attachment.latent_dtype)
    parametrize.register_parametrization(
        weight.owner,
        weight.attribute,
        attachment,
        unsafe=True,  # it may yield another dtype
    )


def detach_(weight: Weight, keep_latent: bool) -> None:
    """Leaves a plain parameter, the same object in its old dtype, with either kind of values."""
    _separate_class(weight.owner)
    if weight.attachment is not None:
        if not keep_latent:
            weight.latent.data.copy_(getattr(weight.owner, weight.attribute).detach())
        parametrize.remove_parametrizations(
            weight.owner, weight.attribute, leave_parametrized=False
        )
        _cast_(weight.latent, weight.dtype)
        if not any(_attached(weight.owner)):
            for handle in vars(weight.owner).pop(HOOKS):
                handle.remove()


def _cast_(parameter: nn.Parameter, dtype: torch.dtype) -> None:
    """Converts a parameter and its gradient in place: optimizers go on holding it."""
    nn.ParameterList([parameter]).to(dtype)


def recorded_options(state: Mapping[str, Any]) -> Dict[str, Any]:
    """The options of `quantize_` that a state_dict shows; empty if nothing in it is quantized.

    Args:
        state: names to tensors, of a module whose quantizers have equal options.

    Returns:
        "bits", "params" ("" where it chose what None chooses), "normalize".
    """
    latent, books = {}, {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        path, _, rest = key.rpartition("parametrizations.")
        attribute, _, entry = rest.partition(".")
        if entry == "original":
            latent[path + attribute] = value
        elif entry == "0.codebook":
            books[path + attribute] = key
    if not books:
        return {}
    by_default = {name for name, value in latent.items() if value.dim() >= 2}
    params = "" if set(books) == by_default else f"^({'|'.join(map(re.escape, books))})$"
    key = next(iter(books.values()))
    options: Dict[str, Any] = {"bits": _bits(state[key]), "params": params}
    normalized = state.get(key.replace("codebook", "normalized"))
    return options if normalized is None else {**options, "normalize": bool(normalized)}


def _bits(codebook: Tensor) -> int:
    return (codebook.numel() - 1).bit_length()


def _attached(owner: nn.Module) -> Iterator[Weight]:
    """The weights of one module, without those of its children, to which something is attached."""
    if parametrize.is_parametrized(owner):
        for attribute, chain in owner.parametrizations.items():  # type: ignore[union-attr,operator]
            if isinstance(chain[0], Attachment):
                yield Weight(attribute, owner, attribute, chain.original, chain[0])


def _separate_class(module: nn.Module) -> None:
    """Separates a parametrized module's class from that of its deep copies.

    Parametrizations are properties of a class made for one module; copy.deepcopy shares that
    class, and changing it for one copy would break the other.
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))


def _add_hooks(owner: nn.Module) -> None:
    # public names of both, without the underscore, came with torch 2.5; these are in all versions
    after_save: Any = owner._register_state_dict_hook
    before_load: Any = owner._register_load_state_dict_pre_hook
    setattr(owner, HOOKS, (after_save(_save), before_load(_load, with_module=True)))


def _checksum(weight: Tensor) -> int:
    """CRC-32 of the bytes of a tensor."""
    octets = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(octets.numpy().tobytes())


def _save(owner: nn.Module, state: Dict[str, Any], prefix: str, *_: Any) -> None:
    """Adds checksums, and plain names with what the module reads, but for noise."""
    for weight in _attached(owner):
        chain = f"{prefix}parametrizations.{weight.attribute}."
        if isinstance(weight.attachment, Noise):  # which is none of the weights' state
            state[prefix + weight.attribute] = state.pop(chain + "original")
        else:
            state[prefix + weight.attribute] = getattr(owner, weight.attribute).detach()
        if weight.quantizer is not None:
            checksum = _checksum(state[chain + "original"])
            state[f"{chain}0.{CHECKSUM}"] = torch.tensor(checksum, dtype=torch.float64)


def _load(owner: nn.Module, state: Dict[str, Any], prefix: str, *_: Any) -> None:
    """Takes the entries of a plain module, too, and fits codebooks that are absent or stale."""
    for weight in _attached(owner):
        chain = f"{prefix}parametrizations.{weight.attribute}."
        plain = state.pop(prefix + weight.attribute, None)
        if plain is not None:
            state.setdefault(chain + "original", plain)
        _require_numbers(state.get(chain + "original"), weight.latent, prefix + weight.attribute)
        if weight.quantizer is not None:
            _load_codebook(weight.quantizer, weight.latent, state, chain)
        elif chain + "0.codebook" in state:
            raise InvalidOptionError(
                f"'{prefix}{weight.attribute}' was quantized when it was trained, and is only "
                "rounded here; quantize with the same `params`"
            )


def _require_numbers(loaded: Any, own: Tensor, name: str) -> None:
    if not isinstance(loaded, Tensor) or loaded.shape != own.shape:
        return  # load_state_dict says so
    if not loaded.is_floating_point() or not torch.isfinite(loaded).all():
        raise InvalidWeightsError(
            f"'{name}' would be loaded with {loaded.dtype} numbers, NaN or infinity; "
            "take another checkpoint"
        )


def _load_codebook(quantizer: Quantizer, weight: Tensor, state: Dict[str, Any], chain: str) -> None:
    base, latent = chain + "0.", state.get(chain + "original")
    normalized, checksum = state.get(base + "normalized"), state.pop(base + CHECKSUM, None)
    if normalized is not None and bool(normalized) != quantizer.options.normalize:
        raise InvalidOptionError(
            f"'{quantizer.name}' was trained with normalize={bool(normalized)}, which is part of "
            "what its codebook means; quantize with the same"
        )
    codebook = state.get(base + "codebook")
    if codebook is not None and _bits(codebook) != quantizer.bits:
        raise InvalidOptionError(
            f"'{quantizer.name}' was trained with bits={_bits(codebook)}, and is quantized here "
            f"with bits={quantizer.bits}; quantize with the same"
        )
    if not isinstance(latent, Tensor):
        return
    _require_numbers(codebook, quantizer.codebook, quantizer.name)
    absent = codebook is None
    if absent or (checksum is not None and float(checksum) != _checksum(latent)):
        fresh = copy.deepcopy(quantizer)
        if absent:
            fresh.fits.zero_()
        fresh.fit_(latent.to(weight))
        state.update(fresh.state_dict(prefix=base))
