"""Orders in which a loader draws samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any

import torch
from torch.utils.data import BatchSampler, Sampler, SequentialSampler

from dassl.utils import UserError, check_choice, distributed


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
        return _with_seeds(torch.randperm(len(self)).tolist())


class SharedBatchSampler(BatchSampler):
    """Yields this process's share of each batch that the main process draws."""

    def __iter__(self) -> Iterator[list[Any]]:
        batches = list(super().__iter__())  # drawn by all, so that their generators go on alike
        return (list(distributed.share(batch)) for batch in distributed.broadcast(batches))


def index_and_seed(key: int | tuple[int, int]) -> tuple[int, int | None]:
    """Return what a sampler drew as an index and a seed, if it drew one."""
    return key if isinstance(key, tuple) else (key, None)


class GroupSampler(Sampler[tuple[int, int]]):
    """Draws batches of equally many samples of some groups, all groups equally often.

    Args:
        items: what is sampled.
        attribute: of an item; its value names the item's group.
        n_groups: groups in a batch.
        n_each: samples of each.

    Raises:
        UserError: there are too few groups, or one is too small.
    """

    def __init__(self, items: Any, attribute: str, n_groups: int, n_each: int) -> None:
        groups: dict[Any, list[int]] = {}
        for index, item in enumerate(items):
            groups.setdefault(getattr(item, attribute), []).append(index)
        smallest = min(map(len, groups.values()))
        if not 1 <= n_groups <= len(groups) or not 1 <= n_each <= smallest:
            raise UserError(
                f"a batch of {n_groups} {attribute}s with {n_each} images of each cannot be drawn "
                f"from {len(groups)}, the smallest with {smallest}: change BATCH_SIZE, N_DOMAIN or "
                "N_INS"
            )
        self.groups, self.n_each = list(groups.values()), n_each
        self.rounds = smallest // n_each
        self.drawn = len(groups) // n_groups * n_groups  # groups in a round

    def __len__(self) -> int:
        return self.rounds * self.drawn * self.n_each

    def __iter__(self) -> Iterator[tuple[int, int]]:
        orders = [[own[i] for i in torch.randperm(len(own))] for own in self.groups]
        indices = [
            index
            for start in range(0, self.rounds * self.n_each, self.n_each)
            for group in torch.randperm(len(orders))[: self.drawn]
            for index in orders[group][start : start + self.n_each]
        ]
        return _with_seeds(indices)


def _with_seeds(indices: list[int]) -> Iterator[tuple[int, int]]:
    return zip(indices, torch.randint(2**63 - 1, (len(indices),)).tolist(), strict=True)


SAMPLERS = ("RandomSampler", "SequentialSampler", "RandomDomainSampler", "RandomClassSampler")


def build_sampler(
    sampler_type: str,
    data_source: Sequence[Any],
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler[Any]:
    """Build a sampler.

    Args:
        sampler_type: one of ``SAMPLERS``.
        data_source: what is sampled.
        batch_size: of the loader, for samplers of whole batches.
        n_domain: domains in a batch of "RandomDomainSampler"; less than 1: all.
        n_ins: items of a class in a batch of "RandomClassSampler".

    Raises:
        UnknownNameError: there is no such sampler.
        UserError: there are too few groups for a batch.
    """
    check_choice("SAMPLER", sampler_type, SAMPLERS)
    if sampler_type == "RandomDomainSampler":
        n_domain = n_domain if n_domain > 0 else len({item.domain for item in data_source})
        return GroupSampler(data_source, "domain", n_domain, batch_size // n_domain)
    if sampler_type == "RandomClassSampler":
        return GroupSampler(data_source, "label", batch_size // n_ins, n_ins)
    return (RandomSampler if sampler_type == "RandomSampler" else SequentialSampler)(data_source)
