"""Dassl trainers and their quantized counterparts.

    @TRAINER_REGISTRY.register()
    class QCoOp(Quantized, CoOp):
        ...

or, for any other trainer of the host, `quantized(PromptSRC)`. Works on whatever Dassl the host has;
only `quantized` imports it, for its registry of trainers.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from dataclasses import fields
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
    Type,
)

from torch import distributed, nn

from .api import add_noise_, draw_noise_, named_quantizers, quantize_, remove_, step_
from .dassl_config import TRAINING_KEYS, Options, add_config, compact_json, describe_data
from .errors import InvalidOptionError, NoParameterError, PackedFileError
from .packing import pack, payload_bytes, read_metadata
from .quantizer import Quantizer, QuantizerOptions
from .statistics import record_statistics

__all__ = ["Options", "Quantized", "add_config", "own_nodes", "plain_class", "quantized"]

LAST, BEST = "prompt", "prompt-best"  # names of packed files
STATISTICS = "weights.csv"
BEST_CHECKPOINT = "model-best.pth.tar"


def own_nodes(trainer_class: Type[Any], trainers: Mapping[str, Any]) -> Dict[str, Any]:
    """The configuration nodes that a trainer reads.

    Args:
        trainer_class: a Dassl trainer.
        trainers: the nodes of all trainers, by name, as in cfg.TRAINER.

    Returns:
        What its `node` names, or else the nodes named like the class or a base of it, or else all;
        and QPROMPT if it is quantized.
    """
    nodes = {name: node for name, node in trainers.items() if isinstance(node, Mapping)}
    quantization = nodes.pop("QPROMPT", None)
    named = {c.__name__.upper() for c in trainer_class.__mro__}
    names = {getattr(trainer_class, "node", "")} & nodes.keys() or named
    own = {name: node for name, node in nodes.items() if name in names} or nodes
    if quantization is not None and issubclass(trainer_class, Quantized):
        own["QPROMPT"] = quantization
    return own


if TYPE_CHECKING:

    class _Trainer:
        """What the mixin uses of Dassl's TrainerX."""

        cfg: Any
        output_dir: str
        epoch: int
        start_epoch: int
        max_epoch: int
        epochs_done: Optional[int]
        _models: Dict[str, nn.Module]

        def check_cfg(self, cfg: Any) -> None: ...
        def build_model(self) -> None: ...
        def forward_backward(self, *batches: Any) -> Any: ...
        def save_model(self, epoch: int, directory: str, *args: Any, **kwargs: Any) -> None: ...
        def load_model(self, directory: str, epoch: Any = None) -> None: ...
        def before_epoch(self) -> None: ...
        def after_epoch(self) -> None: ...
        def after_train(self) -> None: ...
        def write_scalar(self, tag: str, value: float, step: Optional[int] = None) -> None: ...
else:
    _Trainer = object


class Quantized(_Trainer):
    """Quantizes the prompts of the Dassl trainer that follows it in the list of bases.

    Beside each checkpoint lies the packed prompt: prompt.safetensors for the last one,
    prompt-best.safetensors for the best. It is written before the checkpoint: whoever is killed in
    between trains that epoch again. With MODE ptq checkpoints stay those of the plain trainer, and
    what is tested and packed is their quantization. With MODE noise nothing is quantized or packed:
    the plain trainer, with noise on its weights while it trains. With STATISTICS there is a
    weights.csv, too.
    """

    _deploying = False

    def check_cfg(self, cfg: Any) -> None:
        super().check_cfg(cfg)
        if Options.from_cfg(cfg).half_latents and any(
            node.get("PREC") == "amp" for node in own_nodes(type(self), cfg.TRAINER).values()
        ):
            raise InvalidOptionError(
                "TRAINER.QPROMPT: HALF_LATENTS is set and PREC is amp, whose gradient scaler takes "
                "no weights of half precision: choose another PREC"
            )

    def build_model(self) -> None:
        self.qprompt = Options.from_cfg(self.cfg)
        super().build_model()
        for _, module in self._registered_modules():
            after_load: Any = module.register_load_state_dict_post_hook
            after_load(_report_missing)
        if self.qprompt.mode == "qat":  # after the optimizer and INIT_WEIGHTS
            self._quantize()
        elif self.qprompt.mode == "noise":
            self._add_noise()

    def before_epoch(self) -> None:
        if self.epoch == 0:
            self._record_statistics(0)
        super().before_epoch()

    def after_epoch(self) -> None:
        self._record_statistics(self.epoch + 1)
        super().after_epoch()

    def forward_backward(self, *batches: Any) -> Any:
        if self.qprompt.mode == "noise":
            for _, module in self._registered_modules():
                draw_noise_(module)
        summary = super().forward_backward(*batches)
        if self.qprompt.mode != "qat":
            return summary
        refits = sum(step_(module) for _, module in self._registered_modules())
        return {**(summary or {}), "refits": float(refits)}

    def save_model(self, epoch: int, directory: str, *args: Any, **kwargs: Any) -> None:
        model_name = kwargs.get("model_name", args[2] if len(args) > 2 else "")
        last = model_name != BEST_CHECKPOINT
        best = kwargs.get("is_best", bool(args and args[0])) or not last
        plain = self.qprompt.mode == "ptq" and not self._quantizers()
        if plain:
            self._quantize()
        try:
            for name in [LAST] * last + [BEST] * best:
                self._pack(directory, name, epoch + 1)
        finally:
            if plain:
                for _, module in self._registered_modules():
                    remove_(module, keep_latent=True)
        super().save_model(epoch, directory, *args, **kwargs)

    def load_model(self, directory: str, epoch: Any = None) -> None:
        super().load_model(directory, epoch)
        if self.qprompt.mode == "ptq" and not self._quantizers():
            self._quantize()
        for quantizer in self._quantizers():
            print(f"QPrompt: {quantizer.extra_repr()}, fits={int(quantizer.fits)}")
        trained_for = self.epochs_done if getattr(self, "weights_path", None) else None
        if self._deploying and trained_for is not None:  # not every host says it
            self._pack_unless_there(BEST, trained_for)

    def after_train(self) -> None:
        if self.qprompt.mode == "ptq" and not self._quantizers():
            self._quantize()
        self._pack_unless_there(LAST, max(self.start_epoch, self.max_epoch))
        self._deploying = True  # the best model, if FINAL_MODEL asks for it
        super().after_train()
        self._deploying = False

    def run_summary(self) -> Dict[str, Any]:
        """Adds bits, bytes of the packed prompt and number of codebook fits."""
        inherited: Dict[str, Any] = getattr(super(), "run_summary", dict)()
        modules = [module for _, module in self._quantized_modules()]
        if not modules:
            return {"bits": None, **inherited}
        return {
            **inherited,
            "bits": self.qprompt.bits,
            "stored_bytes": sum(payload_bytes(self.packed_modules(m)[""]) for m in modules),
            "codebook_fits": sum(int(quantizer.fits) for quantizer in self._quantizers()),
        }

    def packed_metadata(self) -> Dict[str, object]:
        """What a packed prompt says of its origin; trainers may add to it."""
        nodes = own_nodes(type(self), self.cfg.TRAINER)
        settings = {
            name: {key: value for key, value in node.items() if key not in TRAINING_KEYS}
            for name, node in nodes.items()
        }
        dataset: Any = getattr(getattr(self, "dm", None), "dataset", None)
        return {
            "trainer": type(self).__name__,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "ctx_init": self._context_initialisation(),
            "settings": compact_json(settings),
            **describe_data(self.cfg, getattr(dataset, "classnames", None)),
        }

    def packed_modules(self, module: nn.Module) -> Dict[str, nn.Module]:
        """Modules to pack for a registered model, by the suffix of the file's name.

        The model itself, without a suffix, unless the plain trainer has such a method: it may add
        smaller modules that are enough for inference.
        """
        inherited: Any = getattr(super(), "packed_modules", None)
        return inherited(module) if inherited else {"": module}

    def _packed_files(self, directory: str, name: str) -> Iterator[Tuple[nn.Module, str]]:
        """What is packed under a name, and the files for it."""
        for folder, module in self._quantized_modules():
            for form, packed in self.packed_modules(module).items():
                yield packed, os.path.join(directory, folder, f"{name}{form}.safetensors")

    def _pack(self, directory: str, name: str, epoch: int) -> None:
        metadata: Dict[str, Any] = {**self.packed_metadata(), "epoch": epoch}
        for packed, file in self._packed_files(directory, name):
            os.makedirs(os.path.dirname(file), exist_ok=True)
            pack(packed, file, **metadata)

    def _pack_unless_there(self, name: str, epoch: int) -> None:
        """Packs the current weights, in one process, unless whole files of that epoch are there."""
        if not _is_main():
            return
        files = [file for _, file in self._packed_files(self.output_dir, name)]
        if any(_packed_epoch(file) != str(epoch) for file in files):
            self._pack(self.output_dir, name, epoch)

    def _record_statistics(self, epoch: int) -> None:
        if not (self.qprompt.statistics and _is_main()):
            return
        for folder, module in self._registered_modules():
            file = os.path.join(self.output_dir, folder, STATISTICS)
            for row in record_statistics(module, file, epoch):
                for name, value in row.items():
                    if isinstance(value, float):
                        self.write_scalar(f"weights/{row['parameter']}/{name}", value, epoch)

    def _context_initialisation(self) -> str:
        """CTX_INIT of the node named like the trainer or a base of it, or else of any node.

        Where that is True and no more, as for KgCoOp and ProGrad, the words of the prompts.
        """
        nodes = {key: node for key, node in self.cfg.TRAINER.items() if hasattr(node, "CTX_INIT")}
        bases = [c.__name__.upper() for c in type(self).__mro__]
        chosen = [nodes[name] for name in bases if name in nodes] or list(nodes.values())
        words = next((node.CTX_INIT for node in chosen if node.CTX_INIT), "")
        if words is not True:
            return str(words)
        modules = (part for _, module in self._registered_modules() for part in module.modules())
        return next(filter(None, map(_context_words, modules)), "")

    def _registered_modules(self) -> Iterator[Tuple[str, nn.Module]]:
        """Registered models; never a wrapper, since buffers written on replicas are lost."""
        wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
        for name, module in self._models.items():
            if module is not None:
                yield name, module.module if isinstance(module, wrappers) else module

    def _quantized_modules(self) -> Iterator[Tuple[str, nn.Module]]:
        for name, module in self._registered_modules():
            if any(named_quantizers(module)):
                yield name, module

    def _quantize(self) -> None:
        shared = {f.name: getattr(self.qprompt, f.name) for f in fields(QuantizerOptions)}
        params = self.qprompt.params or None
        self._on_each_model(lambda module: quantize_(module, params=params, **shared))

    def _add_noise(self) -> None:
        options = self.qprompt
        params, relative = options.params or None, options.noise_relative
        self._on_each_model(lambda module: add_noise_(module, options.noise_std, params, relative))

    def _on_each_model(self, attach: Callable[[nn.Module], object]) -> None:
        """Raises NoParameterError if none of the registered models has a parameter for it."""
        errors: List[NoParameterError] = []
        modules = [module for _, module in self._registered_modules()]
        for module in modules:
            try:
                attach(module)
            except NoParameterError as error:
                errors.append(error)
        if len(errors) == len(modules):
            nothing = NoParameterError(f"{type(self).__name__} registers no model to quantize")
            raise errors[0] if errors else nothing

    def _quantizers(self) -> List[Quantizer]:
        modules = [module for _, module in self._registered_modules()]
        return [quantizer for module in modules for _, quantizer in named_quantizers(module)]


def _is_main() -> bool:
    """Whether this is the one process of a distributed run that writes files."""
    there = distributed.is_available() and distributed.is_initialized()
    return not there or distributed.get_rank() == 0


def plain_class(trainer_class: Type[Any]) -> Optional[Type[Any]]:
    """The class that a quantized trainer quantizes; None if it is plain itself."""
    classes = trainer_class.__mro__
    return classes[classes.index(Quantized) + 1] if Quantized in classes else None


def quantized(trainer_class: Type[Any]) -> Type[Any]:
    """Returns the quantized counterpart of a Dassl trainer class, registered as "Q" + its name.

    Its prompts are the trainable parameters of the models that it registers, wherever they are
    below them. A second call returns the same class, and so does a call for a trainer whose
    counterpart stands in a file of its own.

    Args:
        trainer_class: a subclass of the host's TrainerX.

    Raises:
        InvalidOptionError: it is a quantized trainer itself, or another class is registered under
            that name.
    """
    name = f"Q{trainer_class.__name__}"
    if issubclass(trainer_class, Quantized):
        raise InvalidOptionError(f"{trainer_class.__name__} is a quantized trainer already")
    bases = (Quantized, trainer_class)
    registry: Any = importlib.import_module("dassl.engine").TRAINER_REGISTRY
    if name in registry.registered_names():
        known: Type[Any] = registry.get(name)
        if not all(issubclass(known, base) for base in bases):
            raise InvalidOptionError(
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


def _context_words(learner: Any) -> str:
    """The context in the token ids that a learner like upstream's keeps, without placeholders."""
    files = [sys.modules.get(c.__module__) for c in type(learner).__mro__]
    tokenizer: Any = next(filter(None, (getattr(file, "_tokenizer", None) for file in files)), None)
    if not all((tokenizer, hasattr(learner, "tokenized_prompts"), hasattr(learner, "n_ctx"))):
        return ""
    context = learner.tokenized_prompts[0, 1 : 1 + learner.n_ctx]
    return re.sub("^(x )+", "", tokenizer.decode(context.tolist())).strip()


def _packed_epoch(path: str) -> Optional[str]:
    """The epoch that a packed file says it is of; None if it is missing or broken."""
    try:
        return read_metadata(path).get("epoch")
    except (OSError, PackedFileError):
        return None


def _report_missing(module: nn.Module, keys: Any) -> None:
    """Prints which trainable tensors a checkpoint lacked; strict=False would hide it."""
    trainable = {name for name, weight in module.named_parameters() if weight.requires_grad}
    missing = [key for key in keys.missing_keys if key in trainable]
    if missing:
        print(f"QPrompt: the checkpoint lacks {', '.join(missing)}; they keep their values")
