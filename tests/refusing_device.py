"""A device that computes on the host but refuses to be read from there, for machines without a GPU.

`register` makes torch's private-use backend a device named "refusing". Every kernel runs on the
CPU, on memory that only this module can reach, so the numbers are right while the faults of a GPU
show:

* `numpy()` and `np.asarray` raise, as torch itself makes them for every device but the CPU.
* A host tensor beside one of the device raises, unless it has a single value or indexes the other,
as on CUDA.
* A float64 tensor on the device raises, as on MPS.
* `tolist()` of a map raises: it would copy the map and list its values.
* `READS` counts what makes a GPU wait: single values (`item()`, `float()`, `if`) and copies to the
host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

NAME = "refusing"
HOST = torch.device("cpu")
META = torch._C.DispatchKeySet(torch._C.DispatchKey.Meta)
"""Meta's kernels change sizes and strides only, so they serve every device whose memory lies
elsewhere."""

aten = torch.ops.aten
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
READS = {"values": 0, "copies": 0}
LACKS = {torch.float64}

_libraries: list[torch.library.Library] = []


def register() -> torch.device:
    """Registers the device with torch, once in a process."""
    if not _libraries:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
        torch.UntypedStorage.clone = _clone_storage(torch.UntypedStorage.clone)  # type: ignore[method-assign]
        torch.UntypedStorage.cpu = _storage_on_host(torch.UntypedStorage.cpu)  # type: ignore[method-assign]
        torch.UntypedStorage.data_ptr = _address(torch.UntypedStorage.data_ptr)  # type: ignore[method-assign]
        torch.UntypedStorage.to = _move_storage(torch.UntypedStorage.to)  # type: ignore[method-assign]
        torch.Tensor.tolist = _refuse_maps(torch.Tensor.tolist)  # type: ignore[method-assign]
        everything, named = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
        everything.fallback(_compute, "PrivateUse1")
        # These have kernels for every device, which say that a new device has to bring its own.
        named.impl("convolution_overrideable", _convolution, "PrivateUse1")
        named.impl("convolution_backward_overrideable", _convolution_backward, "PrivateUse1")
        _libraries.extend([everything, named])
    return torch.device(NAME, 0)


@contextmanager
def counting() -> Iterator[dict[str, int]]:
    """Counts the reads from the host within the block."""
    before, found = dict(READS), {"values": 0, "copies": 0}
    yield found
    found.update({key: READS[key] - before[key] for key in READS})


class _Backend:
    """What torch asks a device's module for."""

    is_available = is_initialized = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(lambda seed: None)  # draws from the generator of the CPU
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])


def _compute(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Runs an operator on the host's views of its tensors and puts what it returns on the
    device."""
    if op is aten._copy_from.default:
        return _copy(*args)
    if op is aten.as_strided.default or op is aten.view.dtype:
        return op.redispatch(META, *args, **kwargs)
    if op is aten.set_.source_Storage_storage_offset:
        return _rebind(args[0], _host_view(args[0], *args[1:]))
    if op is aten._local_scalar_dense.default:
        READS["values"] += 1
    given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    if op not in INDEXING:
        _check_devices(op, given)
    hosts = {id(one): _on_host(one) for one in given}
    host_args, host_kwargs = tree_map(lambda one: _argument(one, hosts), (args, kwargs))
    result = op(*host_args, **host_kwargs)
    devices = {id(hosts[id(one)]): one for one in given}
    for one in given:
        if hosts[id(one)].shape != one.shape:  # an `out` that was resized
            _rebind(one, hosts[id(one)])
    return tree_map(lambda one: _returned(one, devices), result)


def _convolution(*args: Any) -> Any:
    return _compute(aten.convolution.default, *args)


def _convolution_backward(gradient: Tensor, image: Tensor, weight: Tensor, *settings: Any) -> Any:
    *settings, wanted = settings
    channels = [weight.shape[1] * settings[-1] if settings[3] else weight.shape[0]]
    return _compute(aten.convolution_backward.default, gradient, image, weight, channels, *settings, wanted)


def _check_devices(op: Any, given: list[Tensor]) -> None:
    mixed = [one for one in given if one.device.type != NAME and one.ndim]
    if mixed and any(one.device.type == NAME for one in given):
        raise RuntimeError(
            f"{op}: Expected all tensors to be on the same device, but found {mixed[0].device} and {NAME}"
        )


def _argument(one: Any, hosts: dict[int, Tensor]) -> Any:
    if isinstance(one, Tensor):
        return hosts[id(one)]
    return HOST if isinstance(one, torch.device) else one


def _returned(one: Any, devices: dict[int, Tensor]) -> Any:
    """The device's tensor of a host tensor: the argument itself, a view of one, or a new one."""
    if not isinstance(one, Tensor):
        return one
    if id(one) in devices:
        return devices[id(one)]
    for given in devices.values():
        if given.device.type == NAME and _memory(given).data_ptr() == one.untyped_storage().data_ptr() != 0:
            return aten.as_strided.default.redispatch(META, given, one.size(), one.stride(), one.storage_offset())
    return _new(one)


def _new(host: Tensor) -> Tensor:
    """A tensor of the device that owns the memory of a host tensor."""
    if host.dtype in LACKS:
        raise TypeError(f"{NAME}: a device may lack float64 (MPS does), found {tuple(host.shape)}")
    tensor = torch._C._acc.create_empty_tensor([0], host.dtype)
    return _rebind(tensor, host)


def _rebind(tensor: Tensor, host: Tensor) -> Tensor:
    """Gives a tensor of the device the memory, size and strides of a host tensor."""
    storage = _new_storage(host.untyped_storage())
    return aten.set_.source_Storage_storage_offset.redispatch(
        META, tensor, storage, host.storage_offset(), host.size(), host.stride()
    )


def _new_storage(memory: torch.UntypedStorage) -> torch.UntypedStorage:
    """A storage of the device; the memory hangs on it, and torch keeps both together."""
    owner = torch._C._acc.create_empty_tensor([0], torch.uint8)
    storage = owner.untyped_storage()
    aten.set_.source_Storage_storage_offset.redispatch(META, owner, storage, 0, [memory.nbytes()], [1])  # its length
    storage.memory = memory  # type: ignore[attr-defined]
    return storage


def _memory(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage().memory  # type: ignore[attr-defined]


def _on_host(tensor: Tensor) -> Tensor:
    """A tensor of the device as a host tensor that shares its memory; a host tensor as it is."""
    if tensor.device.type != NAME:
        return tensor
    return _host_view(tensor, tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def _host_view(like: Tensor, storage: torch.UntypedStorage, offset: int, size: Any, stride: Any = ()) -> Tensor:
    return torch.empty(0, dtype=like.dtype).set_(storage.memory, offset, size, stride)  # type: ignore[attr-defined]


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    if target.device.type != NAME:
        READS["copies"] += 1
    _on_host(target).copy_(_on_host(source))
    return target


def _refuse_maps(tolist: Any) -> Any:
    def wrapped(self: Tensor) -> Any:
        if self.device.type == NAME and self.ndim > 1:
            raise TypeError(f"{NAME}: tolist() of a map {tuple(self.shape)}")
        return tolist(self)

    return wrapped


def _clone_storage(clone: Any) -> Any:
    def wrapped(self: torch.UntypedStorage) -> torch.UntypedStorage:
        return _new_storage(self.memory.clone()) if self.device.type == NAME else clone(self)  # type: ignore[attr-defined]

    return wrapped


def _storage_on_host(cpu: Any) -> Any:
    """What `torch.save` writes."""

    def wrapped(self: torch.UntypedStorage) -> torch.UntypedStorage:
        return self.memory.clone() if self.device.type == NAME else cpu(self)  # type: ignore[attr-defined]

    return wrapped


def _move_storage(to: Any) -> Any:
    """What `torch.load` calls to place a storage."""

    def wrapped(self: torch.UntypedStorage, *, device: torch.device, non_blocking: bool = False) -> Any:
        if device.type == NAME and self.device == HOST:
            return _new_storage(self.clone())
        return to(self, device=device, non_blocking=non_blocking)

    return wrapped


def _address(data_ptr: Any) -> Any:
    """What `torch.load` and `torch.save` tell storages apart by."""

    def wrapped(self: torch.UntypedStorage) -> int:
        return data_ptr(self.memory if self.device.type == NAME else self)  # type: ignore[attr-defined]

    return wrapped
