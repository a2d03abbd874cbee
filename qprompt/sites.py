"""Where in a module the parameters are, quantized or not."""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Optional, Tuple, Union

from torch import Tensor, nn
from torch.nn.utils import parametrize

from .quantizer import Quantizer
from .rounding import Rounding

Attached = Union[Quantizer, Rounding]


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
        for attribute, attached, weight in attached_to(owner):
            found.append(Site(prefix + attribute, owner, attribute, weight, attached))
    return found


def attached_to(owner: nn.Module) -> Iterator[Tuple[str, Attached, nn.Parameter]]:
    """What is attached to the parameters of one module, without those of its children."""
    if parametrize.is_parametrized(owner):
        for attribute, chain in owner.parametrizations.items():  # type: ignore[union-attr,operator]
            if isinstance(chain[0], (Quantizer, Rounding)):
                yield attribute, chain[0], chain.original


def quantized(module: nn.Module) -> List[Tuple[Quantizer, Tensor]]:
    """All quantizers and their latent weights; `sites` without names, for every training step."""
    return [
        (chain[0], chain.original)
        for chain in module.modules()
        if isinstance(chain, parametrize.ParametrizationList) and isinstance(chain[0], Quantizer)
    ]
