"""Orders in which a loader draws samples."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import BatchSampler, Sampler, SequentialSampler

from dassl.utils import check_choice, distributed


class RandomSampler(Sampler[tuple[int, int]]):
    """Draws a permutation, and with each index a seed for the augmentation of that sample.

    Both come from the main generator of torch when an epoch starts. So what a sample looks like
    depends neither on the number of loader workers nor on where a run was interrupted.
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = torch.randperm(len(self)).tolist()
        seeds = torch.randint(2**63 - 1, (len(self),)).tolist()
        return zip(order, seeds, strict=True)


class SharedBatchSampler(BatchSampler):
    """Yields this process's share of each batch that the main process draws."""

    def __iter__(self) -> Iterator[list[Any]]:
        batches = list(super().__iter__())  # drawn by all, so that their generators go on alike
        return (list(distributed.share(batch)) for batch in distributed.broadcast(batches))


def index_and_seed(key: int | tuple[int, int]) -> tuple[int, int | None]:
    """Return what a sampler drew as an index and a seed, if it drew one."""
    return key if isinstance(key, tuple) else (key, None)


_SAMPLERS = {"RandomSampler": RandomSampler, "SequentialSampler": SequentialSampler}


def build_sampler(sampler_type: str, data_source: Sized) -> Sampler[Any]:
    """Build a sampler.

    Args:
        sampler_type: "RandomSampler" or "SequentialSampler".
        data_source: what is sampled.

    Raises:
        UnknownNameError: there is no such sampler.
    """
    check_choice("SAMPLER", sampler_type, _SAMPLERS)
    return _SAMPLERS[sampler_type](data_source)
