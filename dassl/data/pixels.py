"""Training images that are decoded once and augmented on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.utils.data import DataLoader, default_collate

from dassl.data.samplers import index_and_seed
from dassl.utils import read_image

BATCHES_AHEAD = 2
Pixels = list[torch.Tensor | Future[torch.Tensor]]


class Batch(dict[str, Any]):
    """A batch; unlike a plain dict it may be referred to weakly."""


class PixelCache:
    """Decoded images by path, as many as fit; a full cache drops those of earlier runs only.

    Images are drawn in another order in each epoch, so to drop the oldest would keep none.

    Args:
        limit: bytes, half of which may be on a GPU.

    Attributes:
        used, on_gpu: bytes, of all and of those on a GPU.
        batches: those that some run holds at the moment, for the runs that train beside it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = self.on_gpu = 0
        self.batches: WeakValueDictionary[Hashable, Batch] = WeakValueDictionary()
        self._pixels: dict[str, torch.Tensor] = {}
        self._dispensable: set[str] = set()
        self._lock = Lock()

    def start_run(self, paths: Iterable[str]) -> None:
        """Let all other images than these make room where it is needed."""
        self._dispensable = self._pixels.keys() - set(paths)

    def get(self, path: str) -> torch.Tensor | None:
        """Return an image that has been read and kept."""
        return self._pixels.get(path)

    def read(self, path: str) -> torch.Tensor:
        """Return an image as a uint8 tensor (3, height, width); any thread may call this.

        Raises:
            ImageReadError: the file is missing or is not a complete image.
        """
        pixels = self._pixels.get(path)
        if pixels is None:
            from torchvision.transforms.v2.functional import pil_to_tensor

            pixels = pil_to_tensor(read_image(path))
            with self._lock:
                self._keep(path, pixels)
        return pixels

    def move(self, path: str, copy: torch.Tensor) -> None:
        """Keep a GPU's copy of an image in its place, if there is room."""
        with self._lock:
            kept = self._pixels.get(path)
            moves = kept is not None and kept.device.type == "cpu"
            if moves and self.on_gpu + copy.nbytes <= self.limit // 2:
                self._pixels[path] = copy.clone()  # else it would keep all of its batch
                self.on_gpu += copy.nbytes

    def _keep(self, path: str, pixels: torch.Tensor) -> None:
        while self._dispensable and self.used + pixels.nbytes > self.limit:
            dropped = self._pixels.pop(self._dispensable.pop())
            self.used -= dropped.nbytes
            self.on_gpu -= dropped.nbytes * (dropped.device.type != "cpu")
        if path not in self._pixels and self.used + pixels.nbytes <= self.limit:
            self._pixels[path] = pixels
            self.used += pixels.nbytes


class PixelLoader(DataLoader[Any]):
    """Batches of a :class:`DatasetWrapper` with an :class:`ImageTransform`.

    While one batch trains, threads decode the next ones. Images and their order, crops and flips
    are those of a plain loader. Torch resizes in place of Pillow: bilinear pixels differ by 1/255
    at most, bicubic ones rarely by more (17/255 was seen in noise), and nearest ones where two are
    equally near.

    Args:
        dataset: the items and their transform.
        cache: where decoded images are kept.
        device: where images are transformed, and stay.
        threads: how many decode.
        options: how samples form batches; see :class:`torch.utils.data.DataLoader`.
    """

    dataset: Any
    batch_sampler: Any

    def __init__(
        self, dataset: Any, cache: PixelCache, device: torch.device, threads: int, **options: Any
    ) -> None:
        super().__init__(dataset, **options)
        self.cache, self.device, self.threads = cache, device, threads

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        items = self.dataset.data_source
        self.cache.start_run(item.impath for item in items)
        transform = str(self.dataset.transform)
        coming: deque[tuple[Sequence[int], Sequence[int | None], Pixels]] = deque()
        pool = ThreadPoolExecutor(self.threads)

        def read(path: str) -> torch.Tensor | Future[torch.Tensor]:
            pixels = self.cache.get(path)
            return pool.submit(self.cache.read, path) if pixels is None else pixels

        try:
            for keys in self.batch_sampler:
                indices, seeds = zip(*map(index_and_seed, keys), strict=True)
                coming.append((indices, seeds, [read(items[i].impath) for i in indices]))
                if len(coming) > BATCHES_AHEAD:
                    yield self._batch(transform, *coming.popleft())
            while coming:
                yield self._batch(transform, *coming.popleft())
        finally:
            pool.shutdown(cancel_futures=True)  # nobody waits for what is left after an error

    def _batch(
        self, transform: str, indices: Sequence[int], seeds: Sequence[int | None], pixels: Pixels
    ) -> Batch:
        labels = [self.dataset.labels(index) for index in indices]
        content = tuple(tuple(label.values()) for label in labels)
        key = (transform, self.device, tuple(seeds), content)
        batch = None if None in seeds else self.cache.batches.get(key)
        if batch is None:
            images = [item.result() if isinstance(item, Future) else item for item in pixels]
            collated = default_collate(labels)
            if self.device.type != "cpu":
                self._copy_to_gpu(images, indices)
                tensors = {k: v for k, v in collated.items() if isinstance(v, torch.Tensor)}
                collated.update({k: v.pin_memory() for k, v in tensors.items()})
            views = self.dataset.transform.batch(images, seeds)
            batch = self.cache.batches[key] = Batch(img=views, **collated)
        return batch

    def _copy_to_gpu(self, images: list[torch.Tensor], indices: Sequence[int]) -> None:
        """Put copies in the place of images that are not there, in one transfer without a wait."""
        places = [i for i, image in enumerate(images) if image.device.type == "cpu"]
        if not places:
            return
        flat = torch.cat([images[i].flatten() for i in places]).pin_memory()
        parts = flat.to(self.device, non_blocking=True).split([images[i].numel() for i in places])
        for i, part in zip(places, parts, strict=True):
            images[i] = part.view(images[i].shape)
            self.cache.move(self.dataset.data_source[indices[i]].impath, images[i])
