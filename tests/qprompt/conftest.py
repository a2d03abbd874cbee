"""Prompt learners of the shapes that host codebases have."""

from __future__ import annotations

import pytest
import torch
from torch import nn


class Learner(nn.Module):
    """CoOp's parameter and buffers, CoCoOp's meta-net, MaPLe's parameter list."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * 0.02)

        self.ctx = weights(4, 64)
        self.deep = nn.ParameterList([weights(2, 32) for _ in range(3)])
        self.proj = nn.Linear(8, 6)
        with torch.no_grad():
            self.proj.weight.copy_(weights(6, 8))
            self.proj.bias.zero_()
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)
        self.register_buffer("token_prefix", torch.ones(5, 1, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A loss whose minimum has another distribution of weights than the start."""
        target = torch.linspace(0, 1, 64).pow(3)
        loss = (self.ctx - target).pow(2).sum() + (self.proj(x) - 1).pow(2).sum()
        for prompt in self.deep:
            loss = loss + (prompt - self.deep[1].flip(1) - target[:32]).pow(2).sum()
        return loss


@pytest.fixture
def make_learner():
    return Learner


@pytest.fixture
def learner() -> nn.Module:
    return Learner()


@pytest.fixture
def train():
    """Takes plain SGD steps that move every trainable weight, with `after` following each."""

    def run(module: nn.Module, steps: int, after=lambda: None, optimizer=None) -> None:
        optimizer = optimizer or torch.optim.SGD(module.parameters(), lr=0.02)
        for step in range(steps):
            optimizer.zero_grad()
            module(torch.ones(1, 8) * (step + 1) / steps).backward()
            optimizer.step()
            after()

    return run
