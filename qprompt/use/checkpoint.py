"""Checkpoints of this and of upstream's code: what was learned, without their frozen CLIP."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch import Tensor, nn

from ..api import quantize_
from ..errors import QPromptError
from ..parametrization import named_weights, recorded_options

# Under these names models of this and of upstream's code hold their frozen CLIP ...
FROZEN = (
    *("backbone.", "image_encoder.", "text_encoder.", "logit_scale"),
    "prompt_learner.ZS_image_encoder.",
)
LEARNED = "VPT"  # ... but for what has this in its name: upstream's prompts in the towers
CHAIN = "parametrizations."  # in the names of quantizers and latent weights
BUFFERS = ("token_prefix", "token_suffix")  # of upstream's learners, made of the class names


class CheckpointReadError(QPromptError, ValueError):
    """A checkpoint that cannot be read, or holds nothing that was learned."""


class _Object:
    """Stands for what a checkpoint pickles beside tensors; takes all, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Object:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def is_frozen(name: str) -> bool:
    """Return whether a tensor of a model's state is part of its frozen CLIP."""
    return name.startswith(FROZEN) and LEARNED not in name


def read_checkpoint(path: str) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint, without executing anything in the file.

    Raises:
        CheckpointReadError: it is damaged or no checkpoint.
        OSError: it cannot be read.
    """
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Object, name) for name in foreign]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0][:300]
        raise CheckpointReadError(
            f"'{path}' cannot be read as a checkpoint ({reason}); copy or train it again"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointReadError(f"'{path}' holds no state dict of tensors; take another file")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def restore_learner(state: dict[str, Tensor], bits: int | None = None) -> nn.Module:
    """Return a module with what was learned as parameters, quantized as it was when it trained.

    Args:
        state: of a plain or a quantized learner.
        bits: None: those that it trained with, if any; else the module is plain where it was
            trained with others, with the latent weights.

    Raises:
        CheckpointReadError: nothing in the state was learned.
        QPromptError: codebooks and weights do not agree.
    """
    state = {name: value for name, value in state.items() if _is_learned(name)}
    options = recorded_options(state)
    latent = {name: value for name, value in state.items() if CHAIN not in name}
    for name, value in state.items():
        if name.endswith(".original"):
            latent[name.replace(CHAIN, "").removesuffix(".original")] = value
    if not latent:
        raise CheckpointReadError("the checkpoint holds nothing that was learned")
    learner = nn.Module()
    if options and bits in (None, options["bits"]):
        for name, tensor in latent.items():  # state has what is read, in its dtype, by plain names
            _register(learner, name, state.get(name, tensor))
        options["params"] = options["params"] or None
        quantize_(learner, **options)
        learner.load_state_dict(state, strict=False)
    else:
        for name, tensor in latent.items():
            _register(learner, name, tensor)
    return learner


def learned_values(learner: nn.Module) -> dict[str, Tensor]:
    """Return what a learner's encoders would read, by plain names."""
    weights = named_weights(learner)
    return {weight.name: getattr(weight.owner, weight.attribute).detach() for weight in weights}


def _is_learned(name: str) -> bool:
    return not is_frozen(name) and not name.endswith(BUFFERS)


def _register(module: nn.Module, name: str, tensor: Tensor) -> None:
    *parents, attribute = name.split(".")
    for parent in parents:
        if parent not in module._modules:
            module.add_module(parent, nn.Module())
        module = module.get_submodule(parent)
    module.register_parameter(attribute, nn.Parameter(tensor.clone()))
