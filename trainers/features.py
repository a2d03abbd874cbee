"""Features of frozen towers, computed once and stored on disk for every later run.

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
from collections.abc import Callable, Iterable, Mapping
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

import qprompt.clip
from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.transforms import ImageTransform
from dassl.utils import Cache, ProgressBar, UserError, atomic_write, get_or_make, images

CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
DEFAULT_FOLDER = os.path.join(CACHE, "qprompt", "features")
_KEY = re.compile("[0-9a-f]{32}")


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return a hash of named tensors: of names, dtypes, shapes and bytes."""
    total = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors:
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def digest_images(items: Iterable[Datum]) -> str:
    """Return a hash of the paths, sizes and modification times of images, in their order."""
    total = hashlib.blake2b(digest_size=16)
    for item in items:
        status = os.stat(item.impath)
        line = f"{item.impath}\0{status.st_size}\0{status.st_mtime_ns}\n"
        total.update(line.encode(errors="surrogateescape"))  # a path need not be UTF-8
    return total.hexdigest()


@functools.cache
def encoder_versions() -> dict[str, str]:
    """Return what features depend on beside the weights: a hash of our code, library versions."""
    total = hashlib.blake2b(digest_size=16)
    for file in [*sorted(Path(qprompt.clip.__file__).parent.glob("*.py")), Path(images.__file__)]:
        total.update(file.read_bytes())
    libraries = ("torch", "torchvision", "open_clip_torch", "pillow")
    return {"clip": total.hexdigest(), **{name: version(name) for name in libraries}}


_digests: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # of frozen backbones


class FeatureCache:
    """A folder of tensors, each under a hash of all that it was computed from.

    Files appear whole or not at all, so that runs may share the folder while they go on.

    Args:
        folder: where the files go; "~" is the home folder.
        cache: where tensors stay in memory for other runs of this process; None: nowhere.

    Raises:
        UserError: no folder is named.
    """

    def __init__(self, folder: str, cache: Cache | None = None) -> None:
        if not folder:
            raise UserError("no features are kept: TEST.FEATURE_CACHE is empty; name a folder")
        self.folder = Path(folder).expanduser()
        self.cache = cache

    def get(self, inputs: Mapping[str, Any], compute: Callable[[], Tensor]) -> Tensor:
        """Return the tensor that follows from ``inputs``, from a file or from ``compute``.

        A file that is damaged or cannot be read is reported and made again.

        Args:
            inputs: JSON values; everything that the tensor depends on.
            compute: draws no random numbers.
        """
        description = json.dumps(inputs, sort_keys=True)
        key = hashlib.blake2b(description.encode(), digest_size=16).hexdigest()
        return get_or_make(
            self.cache, ("features", key), lambda: self._get(key, description, compute)
        )

    def clear(self) -> int:
        """Delete all features, and nothing else; return how many files there were."""
        files = [file for file in self.folder.glob("*.safetensors") if _KEY.fullmatch(file.stem)]
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)

    def _get(self, key: str, description: str, compute: Callable[[], Tensor]) -> Tensor:
        path = self.folder / f"{key}.safetensors"
        try:
            features = _read(path)
            print(f"Features are read from {path}")
            return features
        except FileNotFoundError:
            pass
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            warnings.warn(f"{path} cannot be used and is made again ({error})", stacklevel=4)
        features = compute()
        metadata = {"inputs": description, "digest": digest([("features", features)])}
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
        self._features: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``encode(images)``, which is computed where these images are new."""
        key = digest([("images", images)])
        if key not in self._features:
            self._features[key] = encode(images)
            self.used += self._features[key].nbytes
        self._features.move_to_end(key)
        while self.used > self.limit and len(self._features) > 1:
            self.used -= self._features.popitem(last=False)[1].nbytes
        return self._features[key]


class FrozenFeatures:
    """What a frozen backbone computes, once for all runs.

    Args:
        backbone: a frozen open_clip CLIP.
        name: of the backbone, because its weights do not tell GELU from QuickGELU.
        folder, cache: of a :class:`FeatureCache`; without a folder, everything is computed anew.
    """

    def __init__(
        self, backbone: nn.Module, name: str, folder: str, cache: Cache | None = None
    ) -> None:
        self.backbone, self.name, self.folder, self.cache = backbone, name, folder, cache

    def get(self, inputs: Mapping[str, Any], compute: Callable[[], Tensor]) -> Tensor:
        """Return what ``compute`` computes with the backbone, from the cache if there is one.

        Args:
            inputs: JSON values; everything beside the backbone that the tensor depends on.
            compute: draws no random numbers.
        """
        if not self.folder:
            return compute()
        if self.backbone not in _digests:
            _digests[self.backbone] = digest(sorted(self.backbone.state_dict().items()))
        device = self.device.type
        if device == "cpu":  # sums of floats depend on both in the last bits
            device += f", {torch.get_num_threads()} threads, {get_cpu_capability()}"
        encoder = {
            "name": self.name,
            "backbone": _digests[self.backbone],
            "device": device,
            **encoder_versions(),
        }
        return FeatureCache(self.folder, self.cache).get({**encoder, **inputs}, compute)

    def of_images(self, loader: Any, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the features (images, embed_dim) of all images of a loader, in its order.

        They go into the cache unless the images come by a transform or wrapper of the user's own,
        which nothing but their code could tell apart.

        Args:
            loader: its batches hold images (n, 3, height, width).
            encode: maps such images on the backbone's device to features (n, embed_dim).
        """

        def compute() -> Tensor:
            batches = ProgressBar(loader, desc="image features")
            return torch.cat([encode(batch["img"].to(self.device)) for batch in batches])

        data = loader.dataset
        if type(data) is not DatasetWrapper or not isinstance(data.transform, ImageTransform):
            return compute()
        inputs = {
            "transform": str(data.transform),
            "images": digest_images(data.data_source),
            "batch_size": loader.batch_size,  # sums of floats depend on it in the last bits
        }
        return self.get(inputs, compute)

    def batches(self, loader: Any, encode: Callable[[Tensor], Tensor]) -> Iterable[dict[str, Any]]:
        """Return the batches of a loader with features (n, embed_dim) in place of images.

        A loader with another order than its data set's comes back as it is.

        Args:
            loader, encode: as for :meth:`of_images`.
        """
        if not isinstance(loader.sampler, SequentialSampler):
            return loader
        features = self.of_images(loader, encode).split(loader.batch_size)
        labels = torch.tensor([item.label for item in loader.dataset.data_source])
        pairs = zip(features, labels.split(loader.batch_size), strict=True)
        return [{"img": feature, "label": label} for feature, label in pairs]

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device
