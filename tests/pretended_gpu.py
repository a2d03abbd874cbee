"""A GPU that is not there: its tensors say that they are on ``cuda:0`` and hold CPU numbers.

What a real one would refuse is an error here, too: operations on tensors of two devices. What a
real one would do unseen is counted: kernels that are launched, copies between the devices, and
where the host waits for the device.
"""

import sys
from collections import Counter
from contextlib import contextmanager
from unittest import mock

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, META = torch.device("cuda", 0), torch.device("meta")

# neither views nor kernels: memory without numbers, and what the host needs to know
NO_KERNELS = {
    *("_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("is_same_size", "_local_scalar_dense"),
}
# whose result, or its size, the host needs
WAITS = {
    *("_local_scalar_dense", "bincount", "equal", "is_nonzero", "masked_select", "nonzero"),
    *("_unique2", "unique_consecutive", "unique_dim"),
}


class Device(TorchDispatchMode):
    """While it is active, ``.to("cuda")`` and ``device="cuda"`` make :class:`OnDevice` tensors.

    Attributes:
        kernels: number of launches, by operation.
        copies: number of copies: "to host", "to device" from pinned memory, and those
            "to device, blocking".
        waits: where the host waits for the device, by operation and the function that it is in.
    """

    def __init__(self):
        super().__init__()
        self.reset()

    def reset(self):
        self.kernels, self.copies, self.waits = Counter(), Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        target = kwargs.get("device")
        if name == "_to_copy":
            return self._convert(func, args[0], kwargs)
        if name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
            self._count_copy(args[1], len(args) > 2 and args[2])
            func(*tree_map(_held, args), **kwargs)
            return args[0]
        if not (ours or (not tensors and _is_device(target))):
            return func(*args, **kwargs)
        self._check(name, args, [t for t in tensors if t.dim() and not isinstance(t, OnDevice)])
        if name in WAITS or (name == "index" and any(_is_mask(i) for i in args[1])):
            self.waits[f"{name}, {_caller()}"] += 1
        if name not in NO_KERNELS and not _is_view(func._schema):
            self.kernels[name] += 1
        if target is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        return self._wrap(func._schema, args, kwargs, result)

    def _convert(self, func, source, kwargs):
        here = isinstance(source, OnDevice)
        there = _is_device(kwargs["device"]) if kwargs.get("device") is not None else here
        if here != there:
            self._count_copy(source, kwargs.get("non_blocking"))
        elif here:
            self.kernels["_to_copy"] += 1
        kept = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory")}
        result = func(_held(source), **kept)
        return OnDevice(result) if there else result

    def _count_copy(self, source, non_blocking):
        if isinstance(source, OnDevice):
            self.copies["to host"] += 1
            self.waits[f"copy to host, {_caller()}"] += 1
        elif non_blocking and getattr(source, "is_pinned_here", False):
            self.copies["to device"] += 1
        else:
            self.copies["to device, blocking"] += 1

    def _check(self, name, args, others):
        if name.startswith("lift_fresh") or not others:
            return
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            self.copies["to device, blocking"] += len(others)  # CPU indices are allowed
            return
        shapes = [tuple(tensor.shape) for tensor in others]
        raise RuntimeError(f"Expected all tensors on one device: {name}, {shapes} on the CPU")

    @staticmethod
    def _wrap(schema, args, kwargs, result):
        """The result on the device; what changes in place is the object that was given."""
        for i, argument in enumerate(schema.arguments):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(result, torch.Tensor):
                return kwargs[argument.name] if argument.name in kwargs else args[i]
        return tree_map(lambda x: OnDevice(x) if isinstance(x, torch.Tensor) else x, result)


class OnDevice(torch.Tensor):
    """A tensor of the pretended GPU."""

    @staticmethod
    def __new__(cls, held):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        self = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, **layout, dtype=held.dtype, device="meta"
        )
        self.held = held
        return self

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _SAYS:
            return _SAYS[func]
        if func == torch.Tensor.tolist:
            return args[0].detach().to("cpu").tolist()
        if func == torch.Tensor.numpy:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func == torch.Tensor.new_tensor:
            return torch.tensor(args[1], dtype=args[0].dtype).to(META)
        if func == F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func}: the pretended GPU is not active")

    def __repr__(self, **kwargs):
        return f"OnDevice({self.held!r})"

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        with torch.no_grad():
            memo[id(self)] = copy = OnDevice(self.held.clone()).requires_grad_(self.requires_grad)
        copy._is_param = getattr(self, "_is_param", False)
        return copy


_SAYS = {
    torch.Tensor.device.__get__: CUDA,
    torch.Tensor.is_cuda.__get__: True,
    torch.Tensor.is_meta.__get__: False,
    torch.Tensor.is_cpu.__get__: False,
    torch.Tensor.get_device: 0,
}


def _attention(q, k, v, attn_mask=None, is_causal=False):
    """The fused kernel that a GPU chooses, and what it needs to be done to the mask before."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        nothing = torch.zeros((), dtype=q.dtype, device=META)
        attn_mask = torch.where(attn_mask, nothing, nothing - torch.inf)
    if attn_mask is not None and attn_mask.stride(-2) % 8:
        attn_mask = F.pad(attn_mask, (0, -attn_mask.shape[-1] % 8))[..., : attn_mask.shape[-1]]
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(q, k, v, is_causal=is_causal, attn_mask=attn_mask)[0]


class _WithoutDriver(TorchFunctionMode):
    """Keeps torch from looking for a driver: underneath, the device is called meta."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func == torch.Tensor.pin_memory:
            pinned = args[0].clone()
            pinned.is_pinned_here = True
            return pinned
        if func is torch.device:
            return func(*args)
        args, kwargs = tree_map(_without_driver, (args, kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == META:
            return func(*args, **{**kwargs, "device": "cpu"}).to(META)
        return func(*args, **kwargs)


def _without_driver(value):
    if isinstance(value, torch.device) and value.type == "cuda":
        return META
    return META if isinstance(value, str) and value in ("cuda", "cuda:0") else value


def _held(value):
    return value.held if isinstance(value, OnDevice) else value


def _is_device(device):
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _is_view(schema):
    aliases = [result.alias_info for result in schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _is_mask(index):
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


def _caller():
    """The function of this repository that an operation comes from."""
    frame = sys._getframe(2)
    while frame and ("site-packages" in frame.f_code.co_filename or frame.f_globals is globals()):
        frame = frame.f_back
    return frame.f_code.co_name if frame else "backward pass"


@contextmanager
def pretended_gpu():
    """Let there be a GPU; yields the :class:`Device`.

    Trainers that are built in this context are on it.
    """
    found = [
        mock.patch(f"{module}.choose_device", lambda cfg: CUDA)
        for module in ("dassl.engine.trainer", "dassl.data.data_manager")
    ]
    # as tensors of a GPU have them: operations on lists of tensors
    foreach = mock.patch("torch.optim.optimizer._foreach_supported_types", [OnDevice])
    with found[0], found[1], foreach, Device() as device, _WithoutDriver():
        yield device
