"""Features that differ between the torch versions that the library runs on: 1.13 to the newest."""

from __future__ import annotations

from typing import Any

from torch import nn

# The public names of the first two, without the underscore, came with torch 2.5; these are in all.


def before_load(module: nn.Module, hook: Any) -> Any:
    """Calls hook(module, state_dict, prefix, ...) before each load; returns its handle."""
    register: Any = module._register_load_state_dict_pre_hook
    return register(hook, with_module=True)


def after_save(module: nn.Module, hook: Any) -> Any:
    """Calls hook(module, state_dict, prefix, metadata) on each state_dict; returns its handle."""
    register: Any = module._register_state_dict_hook
    return register(hook)


def after_load(module: nn.Module, hook: Any) -> Any:
    """Calls hook(module, incompatible_keys) after each load; returns its handle."""
    register: Any = module.register_load_state_dict_post_hook
    return register(hook)
