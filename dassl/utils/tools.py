"""Seeds, the environment, and other small helpers."""

from __future__ import annotations

import platform
import random
from importlib import metadata
from typing import Any

import numpy as np
import torch

# hosts import them from here
from dassl.utils.files import (  # noqa: F401
    check_isfile,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    write_json,
)
from dassl.utils.images import read_image  # noqa: F401


def choose_device(cfg: Any) -> torch.device:
    """Return the GPU if there is one and cfg.USE_CUDA allows it, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")


def set_numerics() -> None:
    """Let GPUs compute in float32 where it says float32, convolutions included, and not in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def numerics(device: torch.device) -> dict[str, Any]:
    """Return what the last bits of a GPU's results depend on; for a CPU only that it is one."""
    if device.type != "cuda":
        return {"device": device.type}
    matmul = torch.backends.cuda.matmul
    return {
        "device": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": [matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "fp16_reduced_precision_reduction": matmul.allow_fp16_reduced_precision_reduction,
        "bf16_reduced_precision_reduction": matmul.allow_bf16_reduced_precision_reduction,
    }


def set_random_seed(seed: int) -> None:
    """Seed random, numpy and torch (all devices); a negative seed leaves them unseeded."""
    if seed < 0:
        return
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of all random generators as tensors and plain containers."""
    version, internal, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    return {
        "python": [version, torch.tensor(internal), gauss],
        "numpy": {
            **numpy_state,
            "state": {
                "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
                "pos": int(numpy_state["state"]["pos"]),
            },
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put all random generators into a state that :func:`rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss if gauss is None else float(gauss)))
    numpy_state = state["numpy"]
    key = numpy_state["state"]["key"].numpy().astype(np.uint32)
    if not 0 <= numpy_state["state"]["pos"] <= len(key):  # which NumPy takes as it is
        raise ValueError(f"position {numpy_state['state']['pos']} in {len(key)} random numbers")
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})
    torch.set_rng_state(state["torch"])
    for device in range(min(len(state["cuda"]), torch.cuda.device_count())):
        torch.cuda.set_rng_state(state["cuda"][device], device)


def tolist_if_not(x: Any) -> list[Any]:
    """Return ``x`` if it is a list, else a list that holds it."""
    return x if isinstance(x, list) else [x]


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on."""
    versions = {"python": platform.python_version()}
    packages = {"torch": "torch", "torchvision": "torchvision", "numpy": "numpy"}
    for name, distribution in {**packages, "open_clip": "open_clip_torch"}.items():
        try:
            versions[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return versions


def collect_env_info() -> str:
    """Return a readable list of versions, processor and devices."""
    lines = {**package_versions(), "platform": platform.platform()}
    lines["cpu threads"] = str(torch.get_num_threads())
    for index in range(torch.cuda.device_count()):
        lines[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    return "\n".join(f"{name}: {value}" for name, value in lines.items())
