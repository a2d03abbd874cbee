"""The mixin that turns a Dassl trainer into its quantized counterpart, and its configuration.

    @TRAINER_REGISTRY.register()
    class QCoOp(Quantized, CoOp):
        ...

It works on whatever class it is mixed into and imports no Dassl.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Tuple

from torch import nn

from .attach import named_quantizers, quantize_, remove_, step_
from .clustering import INTERVAL, KL_THRESHOLD
from .errors import InvalidOptionError, NoParameterError
from .packing import FULL, INFERENCE, pack, payload_bytes
from .quantizer import check_options

MODES = ("qat", "ptq", "none")
PACKED, PACKED_BEST = "prompt.safetensors", "prompt-best.safetensors"
BEST_CHECKPOINT = "model-best.pth.tar"

if TYPE_CHECKING:

    class _Trainer:
        """What the mixin uses of Dassl's TrainerX."""

        cfg: Any
        _models: Dict[str, nn.Module]

        def check_cfg(self, cfg: Any) -> None: ...
        def build_model(self) -> None: ...
        def forward_backward(self, batch: Any) -> Dict[str, Any]: ...
        def save_model(self, epoch: int, directory: str, *args: Any, **kwargs: Any) -> None: ...
        def load_model(self, directory: str, epoch: Any = None) -> None: ...
        def after_train(self) -> None: ...
else:
    _Trainer = object


@dataclass(frozen=True)
class Options:
    """The keys of TRAINER.QPROMPT, in lower case.

    Raises:
        InvalidOptionError: a value is outside its range.
    """

    bits: int = 1
    normalize: bool = True
    interval: int = INTERVAL
    kl_threshold: float = KL_THRESHOLD
    mode: str = "qat"  # while training, after it ("ptq"), or not at all ("none")
    codebook: str = "kmeans"
    params: str = ""  # a regular expression; empty: every trainable tensor of 2 or more dimensions

    def __post_init__(self) -> None:
        try:
            check_options(self.bits, self.interval, self.kl_threshold, self.codebook)
            if self.mode not in MODES:
                raise InvalidOptionError(f"mode must be one of {MODES}, got {self.mode!r}")
            if not isinstance(self.normalize, bool):
                raise InvalidOptionError(f"normalize must be a bool, got {self.normalize!r}")
            re.compile(self.params)
        except (InvalidOptionError, TypeError, re.error) as error:
            raise InvalidOptionError(f"TRAINER.QPROMPT: {error}") from error

    @classmethod
    def from_cfg(cls, cfg: Any) -> Options:
        """Reads the node; a missing node or key means the default."""
        node: Any = getattr(cfg.TRAINER, "QPROMPT", None)
        keys = [(f.name, f.name.upper()) for f in fields(cls)]
        return cls(**{name: getattr(node, key) for name, key in keys if hasattr(node, key)})


def add_config(cfg: Any) -> None:
    """Adds TRAINER.QPROMPT with its defaults to a Dassl configuration, unless it is there."""
    if not hasattr(cfg.TRAINER, "QPROMPT"):
        node = type(cfg)()
        for key, value in asdict(Options()).items():
            setattr(node, key.upper(), value)
        cfg.TRAINER.QPROMPT = node


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
        if self.qprompt.mode != "none":
            for _, module in self._prompted():
                register: Any = module.register_load_state_dict_post_hook
                register(_report_missing)
        if self.qprompt.mode == "qat":  # after the optimizer and INIT_WEIGHTS
            self._quantize()

    def forward_backward(self, batch: Any) -> Dict[str, Any]:
        summary = super().forward_backward(batch)
        if self.qprompt.mode != "qat":
            return summary
        refits = sum(step_(module) for _, module in self._prompted())
        return {**summary, "refits": float(refits)}

    def save_model(self, epoch: int, directory: str, *args: Any, **kwargs: Any) -> None:
        super().save_model(epoch, directory, *args, **kwargs)
        if self.qprompt.mode == "none":
            return
        last = kwargs.get("model_name") != BEST_CHECKPOINT
        best = kwargs.get("is_best", bool(args and args[0])) or not last
        names = [PACKED] * last + [PACKED_BEST] * best
        plain = not self._quantizers()
        if plain:
            self._quantize()
        try:
            facts: Dict[str, Any] = {**self.packed_metadata(), "epoch": epoch + 1}
            for model_name, module in self._prompted():
                if any(named_quantizers(module)):
                    for name in names:
                        path = os.path.join(directory, model_name, name)
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
        if directory and self.qprompt.mode == "ptq" and not self._quantizers():
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
        if errors and not self._quantizers():
            raise errors[0]

    def _quantizers(self) -> List[str]:
        """One line for each quantizer."""
        return [
            f"{quantizer.extra_repr()}, fits={int(quantizer.fits)}"
            for _, module in self._prompted()
            for _, quantizer in named_quantizers(module)
        ]


def _form(module: nn.Module) -> str:
    """Form that the module is in; see `pack`."""
    return INFERENCE if getattr(module, "in_inference_form", False) else FULL


def _report_missing(module: nn.Module, keys: Any) -> None:
    """Prints which trainable tensors a checkpoint lacked; strict=False would hide it."""
    trainable = {name for name, weight in module.named_parameters() if weight.requires_grad}
    missing = [key for key in keys.missing_keys if key in trainable]
    if missing:
        print(f"QPrompt: the checkpoint lacks {', '.join(missing)}; they keep their values")
