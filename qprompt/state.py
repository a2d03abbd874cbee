"""What the state_dict of a quantized module says, and what is made of one that is loaded.

Learners keep weights in more ways than a checkpoint: PromptSRC sums the state_dicts of all epochs,
each multiplied by a weight, and loads the sum; others average them in place. Latent weights may be
averaged, codebooks may not. So every entry is a floating-point tensor, which such arithmetic takes,
and a checksum of the latent weights lies beside each codebook: where it does not belong to the
weights that are loaded, the codebook is fitted to them.
"""

from __future__ import annotations

import copy
import zlib
from typing import Any, Dict

import torch
from torch import Tensor, nn

from .compat import after_save, before_load
from .errors import InvalidOptionError
from .quantizer import Quantizer
from .sites import attached_to

HOOKS = "_qprompt_hooks"
CHECKSUM = "checksum"


def add_hooks(owner: nn.Module) -> None:
    """Lets a module with attached quantizers save and load what this file's first lines say."""
    if HOOKS not in vars(owner):
        setattr(owner, HOOKS, (after_save(owner, _sign), before_load(owner, _accept)))


def remove_hooks(owner: nn.Module) -> None:
    """Inverse of `add_hooks`."""
    for handle in vars(owner).pop(HOOKS):
        handle.remove()


def checksum(weight: Tensor) -> int:
    """CRC-32 of the bytes of a tensor."""
    octets = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(octets.numpy().tobytes())


def _sign(owner: nn.Module, state: Dict[str, Any], prefix: str, *_: Any) -> None:
    for attribute, attached, _weight in attached_to(owner):
        if isinstance(attached, Quantizer):
            chain = f"{prefix}parametrizations.{attribute}."
            signature = checksum(state[chain + "original"])
            state[f"{chain}0.{CHECKSUM}"] = torch.tensor(signature, dtype=torch.float64)


def _accept(owner: nn.Module, state: Dict[str, Any], prefix: str, *_: Any) -> None:
    """Takes the entries of a plain module, too, and fits codebooks that are not there or stale."""
    for attribute, attached, weight in attached_to(owner):
        chain = f"{prefix}parametrizations.{attribute}."
        if chain + "original" not in state and prefix + attribute in state:
            state[chain + "original"] = state.pop(prefix + attribute)
        if isinstance(attached, Quantizer):
            _accept_codebook(attached, weight, state, chain)
        elif chain + "0.codebook" in state:
            raise InvalidOptionError(
                f"'{prefix}{attribute}' was quantized when it was trained, and is only rounded "
                "here; quantize with the same `params`"
            )


def _accept_codebook(
    quantizer: Quantizer, weight: Tensor, state: Dict[str, Any], chain: str
) -> None:
    base, latent = chain + "0.", state.get(chain + "original")
    normalized, signature = state.get(base + "normalized"), state.pop(base + CHECKSUM, None)
    if normalized is not None and bool(normalized) != quantizer.normalize:
        raise InvalidOptionError(
            f"'{quantizer.name}' was trained with normalize={bool(normalized)}, which is part of "
            "what its codebook means; quantize with the same"
        )
    if not isinstance(latent, Tensor):
        return
    absent = base + "codebook" not in state
    if absent or (signature is not None and float(signature) != checksum(latent)):
        fresh = copy.deepcopy(quantizer)
        if absent:
            fresh.fits.zero_()
        fresh.fit_(latent.to(weight))
        state.update(fresh.state_dict(prefix=base))
