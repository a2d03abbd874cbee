"""Training on features of a few augmented views of each image, instead of a new one every time.

A change of the method, for machines without a GPU: with a frozen image tower, an epoch then costs
no image encoding at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from dassl.data.samplers import index_and_seed
from dassl.utils import ProgressBar
from trainers.features import FrozenFeatures, digest, digest_images


@torch.no_grad()
def encode_views(loader: Any, seeds: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Encode the views of all images of a training loader.

    Args:
        loader: its data set augments image ``i`` with a seed for the key ``(i, seed)``.
        seeds: (images, views).
        encode: maps images (n, 3, height, width) to features (n, embed_dim).

    Returns:
        (images, views, embed_dim).
    """
    rows = enumerate(seeds.tolist())
    return torch.stack(
        [
            encode(torch.stack([loader.dataset[i, seed]["img"] for seed in row]))
            for i, row in ProgressBar(rows, desc="views")
        ]
    )


class ViewLoader:
    """The batches of a training loader with features of views in place of images.

    Args:
        loader: images, their order and the seeds with them are those of its sampler.
        features: (images, views, embed_dim).
    """

    def __init__(self, loader: Any, features: Tensor) -> None:
        self.loader, self.features = loader, features

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        views = self.features.shape[1]
        for keys in self.loader.batch_sampler:
            indices, seeds = zip(*map(index_and_seed, keys), strict=True)
            columns = [seed % views for seed in seeds]
            labels = default_collate([self.loader.dataset.labels(index) for index in indices])
            yield {"img": self.features[list(indices), columns], **labels}


def view_features(
    loader: Any, views: int, features: FrozenFeatures, encode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Draw views of all images of a training loader, and return their features.

    Args:
        loader, encode: as for :func:`encode_views`.
        views: number of views of each image.
        features: computes them, or has them from an earlier run.

    Returns:
        (images, views, embed_dim).
    """
    seeds = torch.randint(2**63 - 1, (len(loader.dataset), views))
    inputs = {
        "transform": str(loader.dataset.transform),
        "images": digest_images(loader.dataset.data_source),
        "seeds": digest([("seeds", seeds)]),
    }
    return features.get(inputs, lambda: encode_views(loader, seeds, encode))
