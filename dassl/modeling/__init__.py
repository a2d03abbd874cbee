# ruff: noqa: F401
"""Networks by name, as :class:`dassl.engine.SimpleNet` is made of; CLIPs are elsewhere."""

from dassl.modeling.build import (
    BACKBONE_REGISTRY,
    HEAD_REGISTRY,
    NETWORK_REGISTRY,
    Backbone,
    build_backbone,
    build_head,
    build_network,
)
from dassl.modeling.simple_net import SimpleNet
