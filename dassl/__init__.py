"""The part of Dassl's public API that prompt learning uses, on current PyTorch."""

from __future__ import annotations

import sys
from typing import Any


class _OutOfScope:
    """Says of each name below ``dassl`` that is not here where it is."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name.startswith("dassl."):
            raise ImportError(
                f"{name} is not here: this engine holds what prompt learning uses of Dassl; take "
                "the rest from https://github.com/KaiyangZhou/Dassl.pytorch",
                name=name,
            )


sys.meta_path.append(_OutOfScope)  # asked last, for what was not found
