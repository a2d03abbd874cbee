"""Features of frozen towers, computed once and kept on disk for every later run.

A frozen image tower that sees no prompt makes the same features of the same image in every run,
whatever the trainer, the seed or the number of bits.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.backends.cpu import get_cpu_capability
from torch.utils.data import SequentialSampler

import clip
from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.transforms import ImageTransform
from dassl.engine import TrainerX
from dassl.utils import ProgressBar, atomic_write, shared

CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
DEFAULT_FOLDER = os.path.join(CACHE, "qprompt", "features")
_KEY = re.compile("[0-9a-f]{32}")


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return a hash of named tensors: of names, dtypes, shapes and bytes."""
    total = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors:
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def image_list(items: Iterable[Datum]) -> str:
    """Return a hash of the paths, sizes and modification times of images, in their order."""
    total = hashlib.blake2b(digest_size=16)
    for item in items:
        status = os.stat(item.impath)
        total.update(f"{item.impath}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return total.hexdigest()


@functools.cache
def encoder() -> dict[str, str]:
    """Return what computes features beside the weights: this code, and versions of libraries."""
    total = hashlib.blake2b(digest_size=16)
    for file in sorted(Path(clip.__file__).parent.glob("*.py")):
        total.update(file.read_bytes())
    libraries = ("torch", "torchvision", "open_clip_torch", "pillow")
    return {"clip": total.hexdigest(), **{name: version(name) for name in libraries}}


_digests: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # of frozen backbones


class FeatureCache:
    """A folder of tensors, each under a hash of all that it was computed from.

    Files appear whole or not at all, so that runs may share the folder while they go on.

    Args:
        folder: where the files go; "~" is the home folder.

    Raises:
        ValueError: no folder is named.
    """

    def __init__(self, folder: str) -> None:
        if not folder:
            raise ValueError("no features are kept: TEST.FEATURE_CACHE is empty; name a folder")
        self.folder = Path(folder).expanduser()

    def get(self, facts: Mapping[str, Any], make: Callable[[], Tensor]) -> Tensor:
        """Return the tensor that follows from ``facts``: a kept one, or that of ``make``.

        A file that is damaged or cannot be read is reported and made again.

        Args:
            facts: JSON values; everything that the tensor depends on.
            make: computes it, without drawing random numbers.
        """
        described = json.dumps(facts, sort_keys=True)
        key = hashlib.blake2b(described.encode(), digest_size=16).hexdigest()
        return shared(("features", key), lambda: self._get(key, described, make))

    def clear(self) -> int:
        """Delete all kept features, and nothing else; return how many files there were."""
        files = [file for file in self.folder.glob("*.safetensors") if _KEY.fullmatch(file.stem)]
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)

    def _get(self, key: str, described: str, make: Callable[[], Tensor]) -> Tensor:
        path = self.folder / f"{key}.safetensors"
        try:
            features = _read(path)
            print(f"Features are read from {path}")
            return features
        except FileNotFoundError:
            pass
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            warnings.warn(f"{path} cannot be used and is made again ({error})", stacklevel=4)
        features = make()
        metadata = {"facts": described, "digest": digest([("features", features)])}
        try:
            with atomic_write(path) as file:
                file.write(save({"features": features.cpu().contiguous()}, metadata))
            print(f"Features are kept in {path}")
        except OSError as error:
            warnings.warn(
                f"the features cannot be kept for later runs: {error}; name another folder as "
                "TEST.FEATURE_CACHE",
                stacklevel=4,
            )
        return features


def _read(path: Path) -> Tensor:
    with safe_open(path, framework="pt") as file:
        features = file.get_tensor("features")
        if file.metadata()["digest"] != digest([("features", features)]):
            raise ValueError("its digest is not that of its features")
    return features


class BatchFeatures:
    """Features of training batches, for the runs of one process that see the same ones.

    Runs with the same seed and data set see the same views in the same batches, whatever their
    number of bits.

    Args:
        limit: bytes; the features that were used longest ago make room.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self.limit = limit
        self.used = 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``encode(images)``, which is computed where these images are new."""
        key = digest([("images", images)])
        if key not in self._kept:
            self._kept[key] = encode(images)
            self.used += self._kept[key].nbytes
        self._kept.move_to_end(key)
        while self.used > self.limit and len(self._kept) > 1:
            self.used -= self._kept.popitem(last=False)[1].nbytes
        return self._kept[key]


class FrozenFeatures(TrainerX):
    """Evaluates a :class:`PromptedCLIP`, on kept features where its image tower sees no prompt."""

    model: Any

    def scores(self, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield logits (batch, classes) and labels (batch,), the texts encoded once for all."""
        with self.model.fixed():
            if not (
                self.model.frozen_image_tower and isinstance(loader.sampler, SequentialSampler)
            ):
                yield from super().scores(loader)
                return
            labels = torch.tensor([item.label for item in loader.dataset.data_source])
            features = self.image_features(loader)
            size = loader.batch_size
            for batch in zip(features.split(size), labels.split(size), strict=True):
                feature, label = (tensor.to(self.device) for tensor in batch)
                yield self.model_inference(feature), label

    def image_features(self, loader: Any) -> Tensor:
        """Return the features (images, embed_dim) of all images of a loader, in its order.

        They are kept unless the images come by a transform or wrapper of the user's own, which
        nothing but their code could tell apart.
        """
        facts = {
            "transform": str(loader.dataset.transform),
            "images": image_list(loader.dataset.data_source),
            "batch_size": loader.batch_size,  # sums of floats depend on it in the last bits
        }

        def make() -> Tensor:
            batches = ProgressBar(loader, desc="image features")
            images = (self.parse_batch_test(batch)[0] for batch in batches)
            return torch.cat([self.model.encode_image(image) for image in images])

        data = loader.dataset
        known = type(data) is DatasetWrapper and isinstance(data.transform, ImageTransform)
        return self.kept(self.model.backbone, facts, make) if known else make()

    def kept(
        self, backbone: nn.Module, facts: Mapping[str, Any], make: Callable[[], Tensor]
    ) -> Tensor:
        """Return what ``make`` computes with a frozen backbone, from the cache if there is one.

        Args:
            backbone: its name, weights and device, and :func:`encoder`, are added to the facts.
            facts, make: as for :meth:`FeatureCache.get`.
        """
        folder = self.cfg.TEST.FEATURE_CACHE
        if not folder:
            return make()
        if backbone not in _digests:
            _digests[backbone] = digest(sorted(backbone.state_dict().items()))
        device = self.device.type
        if device == "cpu":  # sums of floats depend on both in the last bits
            device += f", {torch.get_num_threads()} threads, {get_cpu_capability()}"
        own = {
            "name": self.cfg.MODEL.BACKBONE.NAME,  # weights do not tell GELU from QuickGELU
            "backbone": _digests[backbone],
            "device": device,
            **encoder(),
        }
        return FeatureCache(folder).get({**own, **facts}, make)
