"""What weights are mapped to: the straight-through quantizer, its options, rounding, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .assignment import STORED, encode, histograms, moments, quantize, stored
from .errors import InvalidOptionError, InvalidWeightsError
from .kmeans import kmeans_1d, require_clusterable

MAX_BITS = 8

# The paper names both constants and gives no value. These are ours: an interval of a few epochs
# of few-shot training, and about the divergence that two samples of one distribution show by
# chance for 2048 weights and two bins, (k - 1) / N = 0.0005, doubled.
INTERVAL = 50
KL_THRESHOLD = 0.001


def uniform_levels(x: Tensor, k: int) -> Tensor:
    """Centres of `k` cells of equal width between the extremes of `x`: float32, shape (k,).

    Where `x` has at most `k` distinct values, those, as in `kmeans_1d`.
    """
    values: Tensor = torch.unique(x.float())
    if len(values) <= k:
        return torch.cat([values, values[-1:].expand(k - len(values))])
    return values[0] + (values[-1] - values[0]) * _cell_centres(values, k)


def normal_levels(x: Tensor, k: int) -> Tensor:
    """Medians of `k` cells of equal probability of a normal distribution: float32, shape (k,).

    Its mean and standard deviation are those of `x`. Where `x` has at most `k` distinct values,
    those, as in `kmeans_1d`.
    """
    values: Tensor = torch.unique(x.float())
    if len(values) <= k:
        return uniform_levels(values, k)
    std, mean = torch.std_mean(x.float(), unbiased=False)
    standard: Tensor = torch.special.ndtri(_cell_centres(values, k))
    return mean + std * standard


def _cell_centres(like: Tensor, k: int) -> Tensor:
    """Centres of `k` equal cells of [0, 1]."""
    return (torch.arange(k, dtype=like.dtype, device=like.device) + 0.5) / k


CODEBOOKS: Dict[str, Callable[[Tensor, int], Tensor]] = {
    "kmeans": kmeans_1d,
    "uniform": uniform_levels,
    "normal": normal_levels,
}


@dataclass(frozen=True)
class QuantizerOptions:
    """How weights are quantized, and when their codebook is fitted again.

    Args:
        bits: 1 to 8; a codebook has 2^bits centroids.
        normalize: whether the codebook follows mean and standard deviation between fits.
        interval: training steps between two fits at least.
        kl_threshold: divergence in nats above which the codebook is fitted again.
        codebook: "kmeans", "uniform" or "normal".
        half_latents: whether the optimizer moves latent weights of half precision.
        through_moments: whether the gradient passes through mean and standard deviation, too.

    Raises:
        InvalidOptionError: a value is outside its range.
    """

    bits: int = 1
    normalize: bool = True
    interval: int = INTERVAL
    kl_threshold: float = KL_THRESHOLD
    codebook: str = "kmeans"
    half_latents: bool = False
    through_moments: bool = False

    def __post_init__(self) -> None:
        def integer(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool)

        kl = self.kl_threshold
        valid = {
            "bits": integer(self.bits) and 1 <= self.bits <= MAX_BITS,
            "normalize": isinstance(self.normalize, bool),
            "interval": integer(self.interval) and self.interval >= 1,
            "kl_threshold": (isinstance(kl, float) or integer(kl)) and kl >= 0,
            "codebook": self.codebook in CODEBOOKS,
            "half_latents": isinstance(self.half_latents, bool),
            "through_moments": isinstance(self.through_moments, bool),
        }
        allowed = {
            "bits": f"an integer from 1 to {MAX_BITS}",
            "normalize": "a bool",
            "interval": "a positive number of steps",
            "kl_threshold": "a number >= 0",
            "codebook": f"one of {sorted(CODEBOOKS)}",
            "half_latents": "a bool",
            "through_moments": "a bool",
        }
        for option in valid:
            if not valid[option]:
                value = getattr(self, option)
                raise InvalidOptionError(f"{option} must be {allowed[option]}, got {value!r}")


class Attachment(nn.Module):
    """Maps the latent weights of a parameter to what its module reads.

    Latent weights are float32 at least, since half precision would lose small optimizer steps;
    `half_latents` is there to show that.

    Args:
        dtype: of what is read.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype, self.latent_dtype = dtype, torch.promote_types(dtype, torch.float32)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Lets `module.name = tensor` set the latent weights."""
        return weight.to(self.latent_dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Attachment:
        super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        self.dtype, self.latent_dtype = (  # half() and float() change both
            fn(torch.empty(0, dtype=dtype)).dtype for dtype in (self.dtype, self.latent_dtype)
        )
        return self


class Quantizer(Attachment):
    """Maps each weight to the nearest of 2^bits centroids; the gradient passes straight through.

        W_q = sigma Q((W - mu) / sigma) + mu,    dL/dW = dL/dW_q

    with mu and sigma the mean and the standard deviation of the current weights, taken as
    constants in the gradient. `forward` is pure: `fit_` alone changes the codebook.
    The result holds nothing but half-precision centroids, in the dtype that is read.

    With `through_moments` the gradient passes through mu and sigma as well. That of mu cancels,
    since Q is taken for the identity; that of sigma remains, with W_hat = (W - mu) / sigma:

        dL/dW_j = dL/dW_q,j + W_hat_j / N sum_i dL/dW_q,i (Q(W_hat_i) - W_hat_i)

    Source: QPrompt (arXiv:2407.10704), section on K-Means quantization; straight-through
    estimator (arXiv:1308.3432).

    Args:
        options: bits, kind of codebook, and when it is fitted again.
        name: of the parameter, for messages.
        dtype: of what is read.
    """

    # State that a checkpoint carries: centroids of the normalised weights, the histogram of the
    # weights of the last fit over them, steps since that fit, number of fits, and whether the
    # codebook is of normalised weights at all. All in double precision: denormalisation then undoes
    # normalisation to the last bit that counts, so that weights that are centroids already stay
    # what they are, and hosts that average state_dicts need no exception for integers.
    codebook: Tensor
    counts: Tensor
    steps: Tensor
    fits: Tensor
    normalized: Tensor

    def __init__(
        self,
        options: QuantizerOptions,
        name: str = "weight",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(dtype)
        self.options, self.name = options, name
        if options.half_latents:
            self.latent_dtype = STORED
        k = 2**options.bits
        self.register_buffer("codebook", torch.zeros(k, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(k, dtype=torch.float64))
        for number, value in (("steps", 0), ("fits", 0), ("normalized", options.normalize)):
            self.register_buffer(number, torch.tensor(value, dtype=torch.float64))
        self._counted = (self._state_of_steps(), 0.0)  # what the host knows of `steps`
        self.known: Optional[Tensor] = None  # its values within `quantized_at_once`

    @property
    def bits(self) -> int:
        return self.options.bits

    def extra_repr(self) -> str:
        options = self.options
        return (
            f"{self.name}, bits={options.bits}, codebook={options.codebook}, "
            f"normalize={options.normalize}"
        )

    def forward(self, weight: Tensor) -> Tensor:
        quantized = quantize([(self, weight)])[0] if self.known is None else self.known
        if self.options.through_moments and self.options.normalize:
            mu, sigma = self._moments(weight)
            standard = ((weight - mu) / sigma).detach()
            error = ((quantized - weight) / sigma).detach()
            weight = weight + error * (standard * weight).mean()  # a mean with sigma's gradient
        return _straight_through(quantized, weight)

    def encode(self, weight: Tensor) -> Tuple[Tensor, Tensor]:
        """Indices (shape of `weight`, int32) and half-precision centroids (shape (2^bits,))."""
        indices, centroids = encode([(self, weight)])
        return indices[0], centroids[0]

    def histogram(self, weight: Tensor) -> Tensor:
        """Number of weights at each index, int64, shape (2^bits,)."""
        return histograms([(self, weight)])[0]

    @property
    def steps_since_fit(self) -> float:
        """The host keeps that number, too: it waits for a GPU only where others changed it."""
        state, count = self._counted
        return count if state == self._state_of_steps() else float(self.steps)

    @staticmethod
    @torch.no_grad()
    def count_step_(quantizers: Sequence[Quantizer]) -> None:
        """Counts one training step of each."""
        counts = [quantizer.steps_since_fit for quantizer in quantizers]
        torch._foreach_add_([quantizer.steps for quantizer in quantizers], 1)
        for i, quantizer in enumerate(quantizers):
            quantizer._counted = (quantizer._state_of_steps(), counts[i] + 1)

    def _state_of_steps(self) -> Tuple[int, int]:
        return id(self.steps), self.steps._version

    @torch.no_grad()
    def fit_(self, weight: Tensor) -> None:
        """Fits the codebook to the weights.

        K-Means and normalisation commute, so the weights themselves are clustered and 2^bits
        centroids are normalised in place of N weights. Weights that have at most 2^bits distinct
        values, all of them half-precision numbers, are then mapped to themselves exactly.

        Raises:
            InvalidWeightsError: naming the parameter.
        """
        require_clusterable(weight, f"parameter '{self.name}'")
        centroids = CODEBOOKS[self.options.codebook](weight.detach(), len(self.codebook))
        if not torch.isfinite(stored(centroids, self.dtype)).all():
            largest = float(centroids.to(self.dtype).abs().max())
            raise InvalidWeightsError(
                f"parameter '{self.name}' needs the centroid {largest:g}, "
                f"beyond half precision ({torch.finfo(STORED).max:g}); leave it out with `params`"
            )
        mu, sigma = self._moments(weight)
        self.codebook.copy_((centroids.to(mu) - mu) / sigma)
        self.counts.copy_(self.histogram(weight))
        self.steps.zero_()
        self._counted = (self._state_of_steps(), 0.0)
        self.fits += 1

    def _moments(self, weight: Tensor) -> Tuple[Tensor, Tensor]:
        """Mean and standard deviation in double precision, or 0 and 1."""
        mu, sigma = moments(weight.detach().float().reshape(1, -1), self.options.normalize)
        return mu[0, 0], sigma[0, 0]

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Quantizer:
        exact = dict(self.named_buffers())
        super()._apply(fn, *args, **kwargs)
        for name, buffer in exact.items():  # half() and float() move them, no more
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self


class Rounding(Attachment):
    """Rounds weights to the precision of files; the gradient passes straight through.

    So that what trains is what ships also for the weights beside the codebooks.
    """

    def forward(self, weight: Tensor) -> Tensor:
        return _straight_through(weight.detach().to(STORED).to(self.dtype), weight)


class Noise(Attachment):
    """Adds Gaussian noise to weights while their module trains, W + s e with e ~ N(0, 1).

    Every pass between two calls of `draw_` sees the same e. In evaluation there is no noise.

    Source: QPrompt (arXiv:2407.10704), the experiment that motivates quantization.

    Args:
        std: s, or a fraction of the weights' standard deviation if `relative`.
        like: the weights.

    Raises:
        InvalidOptionError: a negative or infinite `std`.
    """

    noise: Tensor

    def __init__(self, std: float, relative: bool, like: Tensor) -> None:
        super().__init__(like.dtype)
        if not 0 <= std < float("inf"):
            raise InvalidOptionError(f"noise_std must be a number >= 0, got {std!r}")
        self.std, self.relative = std, relative
        noise = torch.zeros_like(like, dtype=self.latent_dtype)
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        if not (self.training and self.std):
            return weight.to(self.dtype)
        scale = self.std * weight.detach().std() if self.relative else self.std
        return (weight + scale * self.noise).to(self.dtype)

    def draw_(self, weight: Tensor) -> None:
        """Draws e for `weight` from its device's generator; nothing where there is no noise."""
        if self.std:
            self.noise = torch.randn_like(weight.detach(), dtype=self.latent_dtype)


class _StraightThrough(torch.autograd.Function):
    """The values, with the gradient of the weight."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor) -> Tensor:
        return values.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, grad


def _straight_through(values: Tensor, weight: Tensor) -> Tensor:
    result: Tensor = _StraightThrough.apply(values, weight)
    return result
