"""Dassl trainers and their quantized counterparts.

    @TRAINER_REGISTRY.register()
    class QCoOp(Quantized, CoOp):
        ...

or, for any other trainer of the host, `quantized(PromptSRC)`. Works on whatever Dassl the host has
and imports none.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Tuple, Type

from torch import nn

from .attach import named_quantizers, quantize_, remove_, step_
from .compat import after_load
from .config import Options, add_config
from .errors import AlreadyQuantizedError, NameTakenError, NoParameterError
from .packing import FULL, INFERENCE, pack, payload_bytes

__all__ = ["Options", "Quantized", "add_config", "quantized"]

PACKED, PACKED_BEST = "prompt.safetensors", "prompt-best.safetensors"
BEST_CHECKPOINT = "model-best.pth.tar"

if TYPE_CHECKING:

    class _Trainer:
        """What the mixin uses of Dassl's TrainerX."""

        cfg: Any
        _models: Dict[str, nn.Module]

        def check_cfg(self, cfg: Any) -> None: ...
        def build_model(self) -> None: ...
        def forward_backward(self, *batches: Any) -> Any: ...
        def save_model(self, epoch: int, directory: str, *args: Any, **kwargs: Any) -> None: ...
        def load_model(self, directory: str, epoch: Any = None) -> None: ...
        def after_train(self) -> None: ...
else:
    _Trainer = object


class Quantized(_Trainer):
    """Quantizes the prompts of the Dassl trainer that follows it in the list of bases.

    Beside each checkpoint lies the packed prompt: prompt.safetensors for the last one,
    prompt-best.safetensors for the best; prompts that have a smaller form for inference (see
    `pack`) also leave prompt-inference.safetensors and prompt-best-inference.safetensors. With MODE
    ptq checkpoints stay those of the plain trainer, and what is tested and packed is their
    quantization.
    """

    def check_cfg(self, cfg: Any) -> None:
        super().check_cfg(cfg)
        Options.from_cfg(cfg)

    def build_model(self) -> None:
        self.qprompt = Options.from_cfg(self.cfg)
        super().build_model()
        for _, module in self._prompted():
            after_load(module, _report_missing)
        if self.qprompt.mode == "qat":  # after the optimizer and INIT_WEIGHTS
            self._quantize()

    def forward_backward(self, *batches: Any) -> Any:
        summary = super().forward_backward(*batches)
        if self.qprompt.mode != "qat":
            return summary
        refits = sum(step_(module) for _, module in self._prompted())
        return {**(summary or {}), "refits": float(refits)}

    def save_model(self, epoch: int, directory: str, *args: Any, **kwargs: Any) -> None:
        super().save_model(epoch, directory, *args, **kwargs)
        if self.qprompt.mode == "none":
            return
        model_name = kwargs.get("model_name", args[2] if len(args) > 2 else "")
        last = model_name != BEST_CHECKPOINT
        best = kwargs.get("is_best", bool(args and args[0])) or not last
        names = [PACKED] * last + [PACKED_BEST] * best
        plain = not self._quantizers()
        if plain:
            self._quantize()
        try:
            facts: Dict[str, Any] = {**self.packed_metadata(), "epoch": epoch + 1}
            for folder, module in self._prompted():
                if any(named_quantizers(module)):
                    os.makedirs(os.path.join(directory, folder), exist_ok=True)
                    for name in names:
                        path = os.path.join(directory, folder, name)
                        pack(module, path, **facts)
                        if hasattr(module, "inference_state"):
                            root, suffix = os.path.splitext(path)
                            pack(module, f"{root}-{INFERENCE}{suffix}", INFERENCE, **facts)
        finally:
            if plain:
                for _, module in self._prompted():
                    remove_(module, keep_latent=True)

    def load_model(self, directory: str, epoch: Any = None) -> None:
        super().load_model(directory, epoch)
        if self.qprompt.mode == "ptq" and not self._quantizers():
            self._quantize()
        for line in self._quantizers():
            print(f"QPrompt: {line}")

    def after_train(self) -> None:
        if self.qprompt.mode == "ptq" and not self._quantizers():
            self._quantize()
        super().after_train()

    def run_summary(self) -> Dict[str, Any]:
        """Adds bits, bytes of the packed prompt and number of codebook fits."""
        inherited: Dict[str, Any] = getattr(super(), "run_summary", dict)()
        modules = [module for _, module in self._prompted() if any(named_quantizers(module))]
        if not modules:
            return {"bits": None, **inherited}
        quantizers = [quantizer for module in modules for _, quantizer in named_quantizers(module)]
        return {
            **inherited,
            "bits": self.qprompt.bits,
            "stored_bytes": sum(payload_bytes(module, _form(module)) for module in modules),
            "codebook_fits": sum(int(quantizer.fits) for quantizer in quantizers),
        }

    def packed_metadata(self) -> Dict[str, object]:
        """What a packed prompt says of its origin; trainers may add to it."""
        return {
            "trainer": type(self).__name__,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "ctx_init": self._context_initialisation(),
        }

    def _context_initialisation(self) -> str:
        """CTX_INIT of the node named like the trainer or a base of it, or else of any node."""
        nodes = {key: node for key, node in self.cfg.TRAINER.items() if hasattr(node, "CTX_INIT")}
        own = [nodes[c.__name__.upper()] for c in type(self).__mro__ if c.__name__.upper() in nodes]
        return next((str(node.CTX_INIT) for node in own or nodes.values() if node.CTX_INIT), "")

    def _prompted(self) -> Iterator[Tuple[str, nn.Module]]:
        """Registered models; never a wrapper, since buffers written on replicas are lost."""
        wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
        for name, module in self._models.items():
            if module is not None:
                yield name, module.module if isinstance(module, wrappers) else module

    def _quantize(self) -> None:
        options = asdict(self.qprompt)
        options.pop("mode")
        options["params"] = options["params"] or None
        errors: List[NoParameterError] = []
        for _, module in self._prompted():
            try:
                quantize_(module, **options)
            except NoParameterError as error:
                errors.append(error)
        if not self._quantizers():
            nothing = NoParameterError(f"{type(self).__name__} registers no model to quantize")
            raise errors[0] if errors else nothing

    def _quantizers(self) -> List[str]:
        """One line for each quantizer."""
        return [
            f"{quantizer.extra_repr()}, fits={int(quantizer.fits)}"
            for _, module in self._prompted()
            for _, quantizer in named_quantizers(module)
        ]


def quantized(trainer_class: Type[Any]) -> Type[Any]:
    """Returns the quantized counterpart of a Dassl trainer class, registered as "Q" + its name.

    Its prompts are the trainable parameters of the models that it registers, wherever they are
    below them. A second call returns the same class, and so does a call for a trainer whose
    counterpart stands in a file of its own.

    Args:
        trainer_class: a subclass of the host's TrainerX.

    Raises:
        AlreadyQuantizedError: it is a quantized trainer itself.
        NameTakenError: another class is registered under that name.
    """
    name = f"Q{trainer_class.__name__}"
    if issubclass(trainer_class, Quantized):
        raise AlreadyQuantizedError(f"{trainer_class.__name__} is a quantized trainer already")
    bases = (Quantized, trainer_class)
    registry: Any = importlib.import_module("dassl.engine").TRAINER_REGISTRY
    if name in registry.registered_names():
        known: Type[Any] = registry.get(name)
        if not all(issubclass(known, base) for base in bases):
            raise NameTakenError(
                f"'{name}' is registered already, by {known.__module__}.{known.__qualname__}, "
                f"which is no quantized {trainer_class.__name__}; rename one of the two"
            )
        return known
    first_line = (trainer_class.__doc__ or "").strip().partition("\n")[0]
    about = {
        "__module__": trainer_class.__module__,
        "__qualname__": name,
        "__doc__": f"{trainer_class.__name__} with K-Means-quantized prompts. {first_line}".strip(),
    }
    counterpart: Type[Any] = type(name, bases, about)
    registry.register()(counterpart)  # as a decorator: called directly, Dassl's returns nothing
    return counterpart


def _form(module: nn.Module) -> str:
    """Form that the module is in; see `pack`."""
    return INFERENCE if getattr(module, "in_inference_form", False) else FULL


def _report_missing(module: nn.Module, keys: Any) -> None:
    """Prints which trainable tensors a checkpoint lacked; strict=False would hide it."""
    trainable = {name for name, weight in module.named_parameters() if weight.requires_grad}
    missing = [key for key in keys.missing_keys if key in trainable]
    if missing:
        print(f"QPrompt: the checkpoint lacks {', '.join(missing)}; they keep their values")
