# ruff: noqa: F401
"""RAdam where forks with an optimizer file of their own import it from: PyTorch's."""

from torch.optim import RAdam
