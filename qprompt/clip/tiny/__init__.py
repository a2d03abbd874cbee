"""The embedded tiny CLIP: a real, if small, model that needs no download.

``weights.safetensors`` holds OpenAI's state-dict layout in half precision, except that of the token
embedding only the rows seen in training are kept. The other rows carry no meaning; they are filled
with fixed noise, so that words the model never saw are at least told apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..tokenizer import VOCABULARY_SIZE

WEIGHTS_PATH = Path(__file__).with_name("weights.safetensors")
_EMBEDDING = "token_embedding.weight"
_ROWS = "token_embedding.rows"
_NOISE_SEED = 0


def save(state: dict[str, Tensor], rows: Tensor, path: str | Path = WEIGHTS_PATH) -> None:
    """Write a state dict in OpenAI's layout, keeping only the given token-embedding rows.

    Args:
        state: a tiny CLIP's state dict.
        rows: (r,) ids of the tokens that training saw.
        path: the file to write.
    """
    tensors = {name: value.half().contiguous() for name, value in state.items()}
    tensors[_EMBEDDING] = tensors[_EMBEDDING][rows]
    tensors[_ROWS] = rows.to(torch.int32)
    save_file(tensors, path)


def state_dict(path: str | Path = WEIGHTS_PATH) -> dict[str, Tensor]:
    """Read the tiny CLIP as a full float16 state dict in OpenAI's layout."""
    tensors = load_file(path)
    rows = tensors.pop(_ROWS).long()
    trained = tensors[_EMBEDDING]
    # RandomState's stream never changes between numpy versions, unlike Generator's.
    noise = np.random.RandomState(_NOISE_SEED).standard_normal((VOCABULARY_SIZE, trained.shape[1]))
    embedding = torch.from_numpy(noise).mul_(trained.float().std()).to(trained.dtype)
    embedding[rows] = trained
    return {**tensors, _EMBEDDING: embedding}
