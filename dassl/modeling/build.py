"""Registered backbones, heads and networks."""

from __future__ import annotations

from typing import Any

from torch import nn

from dassl.utils import Registry, check_choice

BACKBONE_REGISTRY = Registry("BACKBONE")
HEAD_REGISTRY = Registry("HEAD")
NETWORK_REGISTRY = Registry("NETWORK")


def build_backbone(name: str, verbose: bool = True, **options: Any) -> Any:
    """Build a backbone: a module from images to features, whose number is ``out_features``."""
    return _build(BACKBONE_REGISTRY, "Backbone", name, verbose, options)


def build_head(name: str, verbose: bool = True, **options: Any) -> Any:
    """Build a head: a module from features to others, whose number is ``out_features``."""
    return _build(HEAD_REGISTRY, "Head", name, verbose, options)


def build_network(name: str, verbose: bool = True, **options: Any) -> Any:
    """Build a network of any other kind."""
    return _build(NETWORK_REGISTRY, "Network", name, verbose, options)


def _build(registry: Registry, kind: str, name: str, verbose: bool, options: Any) -> Any:
    make = registry.get(name)
    if verbose:
        print(f"{kind}: {name}")
    return make(**options)


class Backbone(nn.Module):
    """A network that says how many features it returns.

    Attributes:
        out_features: their number.
    """

    out_features: int


def _register_resnet(name: str) -> None:
    def resnet(pretrained: bool = True, **_: Any) -> nn.Module:
        from torchvision import models

        network: Any = models.get_model(name, weights="DEFAULT" if pretrained else None)
        network.out_features, network.fc = network.fc.in_features, nn.Identity()
        return network

    resnet.__name__ = name
    BACKBONE_REGISTRY.register(resnet)


for _name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
    _register_resnet(_name)


def mlp(
    in_features: int,
    hidden_layers: tuple[int, ...],
    activation: str = "relu",
    bn: bool = True,
    dropout: float = 0.0,
    **_: Any,
) -> nn.Module:
    """Linear layers, each with normalisation, activation and dropout."""
    activations = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh}
    check_choice("HEAD.ACTIVATION", activation, activations)
    layers: list[nn.Module] = []
    for out_features in hidden_layers:
        layers.append(nn.Linear(in_features, out_features))
        layers += [nn.BatchNorm1d(out_features)] if bn else []
        layers.append(activations[activation]())
        layers += [nn.Dropout(dropout)] if dropout > 0 else []
        in_features = out_features
    head: Any = nn.Sequential(*layers)
    head.out_features = in_features
    return head


HEAD_REGISTRY.register(mlp)
