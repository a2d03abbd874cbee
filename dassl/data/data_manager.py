"""From a configuration to loaders of batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from dassl.config import CfgNode
from dassl.data.datasets import Datum, build_dataset
from dassl.data.pixels import PixelCache, PixelLoader
from dassl.data.samplers import SharedBatchSampler, build_sampler, index_and_seed
from dassl.data.transforms import ImageTransform, build_transform, seeded
from dassl.utils import (
    Cache,
    UserError,
    check_images,
    choose_device,
    distributed,
    get_or_make,
    read_image,
)

Transform = Callable[[Any], Any]

MAX_CHECKED = 100_000  # images whose headers are read before a run: 3 s of processor time


class DatasetWrapper(Dataset[dict[str, Any]]):
    """Items as dicts with img, label, domain, impath and index.

    Training images are augmented cfg.DATALOADER.K_TRANSFORMS times, to img, img2 and so on; with
    RETURN_IMG0, img0 is what evaluation would see of them.

    Args:
        cfg: the configuration.
        data_source: the items.
        transform: from an RGB image to what a batch holds; None keeps the image.
        is_train: whether the items are for training.
    """

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence[Datum],
        transform: Transform | None = None,
        is_train: bool = False,
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.views = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        returns_img0 = is_train and cfg.DATALOADER.RETURN_IMG0
        self.plain = build_transform(cfg, is_train=False) if returns_img0 else None
        if self.views < 1 or (self.views > 1 and transform is None):
            raise UserError(
                f"DATALOADER.K_TRANSFORMS is {self.views}: it is 1, or more with transforms"
            )

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Return item ``index`` for the key ``index``, or ``(index, seed)`` to augment it with."""
        index, seed = index_and_seed(key)
        image: Any = read_image(self.data_source[index].impath)
        images = {"img": image}
        if self.transform is not None:
            with seeded(seed):
                numbers = ("", *range(2, self.views + 1))
                images = {f"img{number}": self.transform(image) for number in numbers}
        if self.plain is not None:
            images["img0"] = self.plain(image)
        return {**images, **self.labels(index)}

    def labels(self, index: int) -> dict[str, Any]:
        """Return item ``index`` without its image."""
        item = self.data_source[index]
        return {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": index,
        }


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 64,
    tfm: Transform | None = None,
    is_train: bool = True,
    dataset_wrapper: type[DatasetWrapper] | None = None,
    cache: Cache | None = None,
    n_domain: int = 0,
    n_ins: int = 16,
) -> DataLoader[Any]:
    """Build a loader over items; ``n_domain`` and ``n_ins`` as for :func:`build_sampler`.

    In training, the last incomplete batch is dropped when there is a complete one, and each of
    several processes loads its share of a batch; images with a transform of
    :func:`build_transform` are decoded once, as far as cfg.DATALOADER.PIXEL_CACHE_MB allows, also
    for the other runs that have the same ``cache``.

    Raises:
        UserError: there are no items.
    """
    if not data_source:
        raise UserError(f"The data set {cfg.DATASET.NAME} has no images to load")
    workers = min(cfg.DATALOADER.NUM_WORKERS, _cpus())
    device = choose_device(cfg)
    dataset = (dataset_wrapper or DatasetWrapper)(
        cfg, data_source, transform=tfm, is_train=is_train
    )
    sampler = build_sampler(sampler_type, data_source, batch_size, n_domain, n_ins)
    drop_last = is_train and len(data_source) >= batch_size
    batching: dict[str, Any]
    if is_train and distributed.world_size() > 1:
        batching = {"batch_sampler": SharedBatchSampler(sampler, batch_size, drop_last)}
    else:
        batching = {"sampler": sampler, "batch_size": batch_size, "drop_last": drop_last}
    one_view = cfg.DATALOADER.K_TRANSFORMS == 1 and not cfg.DATALOADER.RETURN_IMG0
    if is_train and dataset_wrapper is None and one_view and isinstance(tfm, ImageTransform):
        limit = cfg.DATALOADER.PIXEL_CACHE_MB * 2**20
        pixels = get_or_make(cache, ("pixels", limit, str(device)), lambda: PixelCache(limit))
        return PixelLoader(dataset, pixels, device, max(workers, 1), **batching)
    return DataLoader(
        dataset,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        # for the workers' seeds, which would otherwise be drawn from the main generator
        generator=torch.Generator(),
        **batching,
    )


def _cpus() -> int:
    # with more workers than cores, torch warns and loading is slower
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class DataManager:
    """The data set of a configuration and its loaders.

    Args:
        cfg: the configuration.
        custom_tfm_train, custom_tfm_test: used in place of the configured transforms.
        dataset_wrapper: used in place of :class:`DatasetWrapper`.
        cache: what it shares with other runs; None: nothing.

    Attributes:
        dataset: the data set.
        train_loader_x, test_loader: loaders.
        train_loader_u, val_loader: loaders, or None when the data set has no such items.
        num_classes, num_source_domains: counts.
        lab2cname: label -> class name.

    Raises:
        ImageReadError: images of the data set are missing, empty or of no known format.
        UserError: images have neither a transform nor a wrapper.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Transform | None = None,
        custom_tfm_test: Transform | None = None,
        dataset_wrapper: type[DatasetWrapper] | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.dataset = dataset = build_dataset(cfg, cache)
        if dataset_wrapper is None:  # another one may read anything
            checked = get_or_make(cache, "images that were checked", set)
            parts = (dataset.train_x, dataset.train_u, dataset.val, dataset.test)
            paths = {item.impath: None for item in chain(*filter(None, parts))}
            fresh = [path for path in islice(paths, MAX_CHECKED) if path not in checked]
            check_images(fresh)
            checked.update(fresh)
        tfm_train = custom_tfm_train or build_transform(cfg, is_train=True)
        tfm_test = custom_tfm_test or build_transform(cfg, is_train=False)
        if dataset_wrapper is None and not (tfm_train and tfm_test):
            raise UserError(
                "INPUT.NO_TRANSFORM is True, and images as they are fit into no batch: leave it "
                "out, or give DataManager a dataset_wrapper"
            )

        def loader(items: Any, node: CfgNode, tfm: Any, is_train: bool) -> Any:
            items = items if is_train or not items else distributed.share(items)
            options = {"n_domain": node.N_DOMAIN, "n_ins": node.N_INS} if is_train else {}
            return build_data_loader(
                cfg,
                node.SAMPLER,
                items,
                node.BATCH_SIZE,
                tfm,
                is_train,
                dataset_wrapper,
                cache,
                **options,
            )

        train, test = cfg.DATALOADER.TRAIN_X, cfg.DATALOADER.TEST
        self.train_loader_x = loader(dataset.train_x, train, tfm_train, True)
        unlabelled = train if cfg.DATALOADER.TRAIN_U.SAME_AS_X else cfg.DATALOADER.TRAIN_U
        self.train_loader_u = (
            loader(dataset.train_u, unlabelled, tfm_train, True) if dataset.train_u else None
        )
        self.val_loader = loader(dataset.val, test, tfm_test, False) if dataset.val else None
        self.test_loader = loader(dataset.test, test, tfm_test, False)
        self.num_classes = dataset.num_classes
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.lab2cname = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Print the name of the data set and the sizes of its splits."""
        data = self.dataset
        splits = {"train_x": data.train_x, "val": data.val, "test": data.test}
        rows = {
            "Dataset": cfg.DATASET.NAME,
            "Source": cfg.DATASET.SOURCE_DOMAINS,
            "Target": cfg.DATASET.TARGET_DOMAINS,
            "# classes": f"{self.num_classes:,}",
            **{f"# {name}": items and f"{len(items):,}" for name, items in splits.items()},
        }
        rows = {name: str(value) for name, value in rows.items() if value}
        rule = f"{'-' * 9}  {'-' * max(map(len, rows.values()))}"
        print(rule, *(f"{name:9}  {value}" for name, value in rows.items()), rule, sep="\n")
