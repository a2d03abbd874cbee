"""How suffixes of different lengths are packed into rows of one length, several in a row."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# tokens, unless a suffix has more; longer rows compare more tokens of different texts in vain
ROW_LENGTH = 32
# Up to that many tokens of all texts make one row, and prefix and row attend at once
ONE_ROW = {"cpu": 128, "cuda": 512}
PREFIX = -2  # in place of the number of a text; -1 is padding
ALIGNMENT = 8  # columns; attention on a GPU would copy a mask of another width in each layer


class Rows(nn.Module):
    """Suffixes in rows with the least padding, and what their tokens attend to.

    Few texts make one row, by ``ONE_ROW``. Else, of the limits from ``ROW_LENGTH``, or the longest
    suffix, to twice that, the best one is taken; rows are as long as the fullest.

    Args:
        lengths: n numbers of tokens.
        prefix_length: p, the number of tokens of the prefix.
        like: a tensor with the dtype and the device of the prompts.

    Attributes:
        text, position: int64 (rows, row length), which token of which text lies there.
        end: int64 (n,), where each text's last token lies, counted through prefix and all rows.
    """

    text: Tensor
    position: Tensor
    end: Tensor
    _padded_mask: Tensor

    def __init__(self, lengths: Sequence[int], prefix_length: int, like: Tensor) -> None:
        super().__init__()
        rows = _fullest_rows(tuple(lengths), ONE_ROW.get(like.device.type, 0))
        size = max(sum(lengths[i] for i in row) for row in rows)
        text = torch.full((len(rows), size), -1)
        position = torch.zeros_like(text)
        end = torch.empty(len(lengths), dtype=torch.int64)
        for number, row in enumerate(rows):
            stop = 0
            for i in row:
                start, stop = stop, stop + lengths[i]
                text[number, start:stop] = i
                position[number, start:stop] = torch.arange(lengths[i])
                end[i] = prefix_length + number * size + stop - 1
        whole = F.pad(text, (prefix_length, 0), value=PREFIX)
        own = (whole[:, :, None] == whole[:, None]) | (whole[:, None] == PREFIX)
        self.prefix_length, self.width = prefix_length, prefix_length + size
        mask = torch.zeros(len(rows), 1, self.width, self.width + -self.width % ALIGNMENT)
        mask[:, 0, :, : self.width].masked_fill_(~own.tril(), float("-inf"))
        buffers = {"text": text.clamp(min=0), "position": position, "end": end}
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer.to(like.device), persistent=False)
        self.register_buffer("_padded_mask", mask.to(like), persistent=False)

    @property
    def attn_mask(self) -> Tensor:
        """0 where a token of a row attends to another, else -inf.

        To all of the prefix, and to those of its own text up to itself: (rows, 1, row length,
        p + row length).
        """
        return self.whole_mask[:, :, self.prefix_length :]

    @property
    def whole_mask(self) -> Tensor:
        """The same with the prefix before each row: (rows, 1, p + row length, p + row length)."""
        return self._padded_mask[..., : self.width]


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # they may be needed for a gradient later
def rows_of(
    lengths: tuple[int, ...], prefix_length: int, dtype: torch.dtype, device: torch.device
) -> Rows:
    """Return the rows of prompts that come without; arguments as for :class:`Rows`."""
    return Rows(lengths, prefix_length, torch.empty(0, dtype=dtype, device=device))


@functools.lru_cache(maxsize=64)
def _fullest_rows(lengths: tuple[int, ...], one_row: int) -> list[list[int]]:
    """Return the numbers of the texts in each row, which is one of up to ``one_row`` tokens."""
    if sum(lengths) <= one_row:
        return [list(range(len(lengths)))]
    least = max(ROW_LENGTH, *lengths)
    packings = [_pack(lengths, size) for size in range(least, 2 * least)]
    return min(packings, key=lambda rows: len(rows) * max(sum(lengths[i] for i in r) for r in rows))


def _pack(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Fill one row after another, each with the longest texts that it still has room for."""
    waiting: dict[int, list[int]] = {n: [] for n in sorted(set(lengths), reverse=True)}
    for i, length in enumerate(lengths):
        waiting[length].append(i)
    rows = []
    while any(waiting.values()):
        row: list[int] = []
        room = size
        for length, texts in waiting.items():
            fitting = room // length
            row += texts[:fitting]
            room -= length * len(texts[:fitting])
            del texts[:fitting]
        rows.append(row)
    return rows
