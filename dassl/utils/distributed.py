"""Processes of one machine that train one model together, as torchrun starts them.

Each one computes its share of every batch and of the test images, and all end each backward pass
with the gradient of the whole batch. The first process alone prints and writes files. A process
that torchrun did not start is the first of one.

DistributedDataParallel would average gradients as well, but not by the sizes of unequal shares, and
it wraps the model, while trainers register and quantize its parts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch.autograd import Variable

from dassl.utils.errors import UserError

T = TypeVar("T")
TIMEOUT = timedelta(seconds=50)  # to wait for another process in a training step


@contextmanager
def process_group(use_cuda: bool = True) -> Iterator[None]:
    """Join the processes that torchrun started, if it did, each with a GPU of its own.

    Args:
        use_cuda: whether to use GPUs where there are any.

    Raises:
        UserError: there are more processes than GPUs.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    gpus = torch.cuda.device_count() if use_cuda else 0
    if gpus:
        local_rank, processes = (int(os.environ[f"LOCAL_{key}"]) for key in ("RANK", "WORLD_SIZE"))
        if processes > gpus:
            raise UserError(f"{processes} processes for {gpus} GPUs: lower --nproc_per_node")
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    stdout = sys.stdout
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            sys.stdout = stdout if is_main() else nowhere
            yield
    finally:
        sys.stdout = stdout
    # not after an error: it would wait for processes that wait for this one
    dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Return whether this process is the one that prints and writes."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes have come here."""
    if world_size() > 1:
        dist.all_reduce(torch.zeros(1))


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this process's part of a sequence; the parts, in order of rank, make it up.

    Raises:
        UserError: there are fewer items than processes.
    """
    n, processes = len(items), world_size()
    if processes == 1:
        return items
    if n < processes:
        raise UserError(
            f"{n} images cannot be shared among {processes} processes: raise "
            "DATALOADER.TRAIN_X.BATCH_SIZE or lower --nproc_per_node"
        )
    return items[n * rank() // processes : n * (rank() + 1) // processes]


def fraction(n: int) -> float:
    """Return ``n`` divided by its sum over the processes."""
    return float(n / _sum(torch.tensor(n)))


def mean(values: Mapping[str, Any] | None, weight: float) -> Mapping[str, Any] | None:
    """Return the mean of each value over the processes; the weights of all add up to 1."""
    if world_size() == 1 or not values:
        return values
    summed = _sum(weight * torch.tensor([float(v) for v in values.values()], dtype=torch.float64))
    return dict(zip(values, summed.tolist(), strict=True))


def average_gradients(optimizer: torch.optim.Optimizer, weight: Callable[[], float]) -> None:
    """From now on, let backward leave the mean gradient over the processes in each parameter.

    This happens at the end of each pass, for all parameters at once and in float32 at least; hence
    before a gradient scaler looks for overflow, so that all processes find the same. Several passes
    for one step are allowed, because the mean of a sum is the sum of the means.

    Args:
        optimizer: the parameters that require a gradient.
        weight: this process's weight in the mean; those of all processes add up to 1.
    """

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    arrived: set[torch.Tensor] = set()

    def arrive(parameter: torch.Tensor) -> None:
        if not arrived:
            Variable._execution_engine.queue_callback(average)
        arrived.add(parameter)

    def average() -> None:
        gradients = [p.grad for p in parameters if p in arrived and p.grad is not None]
        arrived.clear()
        flat = torch.cat([_at_least_float32(gradient).flatten() for gradient in gradients])
        parts = _sum(flat.mul_(weight())).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    if world_size() > 1:
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(arrive)


def broadcast(value: T) -> T:
    """Return the main process's value."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def gather(batches: Iterable[tuple[torch.Tensor, ...]]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the batches of all processes in order of rank; none but in the main process."""
    if world_size() == 1:
        yield from batches
        return
    mine = [tuple(tensor.cpu() for tensor in batch) for batch in batches]
    parts = [mine] * world_size() if is_main() else None
    dist.gather_object(mine, parts)
    yield from chain.from_iterable(parts or ())


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum in place over the processes, all of which have come to the same training step."""
    if world_size() == 1:
        return tensor
    try:
        work = dist.all_reduce(tensor, async_op=True)
        # with a timeout, the host would wait for the GPU; each step also sums on the CPU
        work.wait(TIMEOUT) if tensor.device.type == "cpu" else work.wait()
    except RuntimeError as error:
        raise UserError(
            f"process {rank()} lost another one, or heard nothing from it for {TIMEOUT.seconds} s "
            f"({error}); unless its own message says why, start again: the run goes on from its "
            "last checkpoint"
        ) from error
    return tensor
