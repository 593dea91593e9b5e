"""A network as OpenVINO applies it: converted once, compiled for this processor, kept on disk."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import UserError
from ...files import code_digest
from ...settings import package_versions
from . import compiled_cache
from .choice import BATCH_SIZE, OPENVINO_BATCH
from .torch_network import TorchNetwork

if TYPE_CHECKING:
    from openvino import CompiledModel, Core, InferRequest

logger = logging.getLogger(__name__)

_COMPILED: WeakKeyDictionary[nn.Module, tuple[Any, dict[Any, _Model]]] = WeakKeyDictionary()
"""The weights of each network that lives, and what was compiled of it with these."""
_COMPILING, _IMPORTING = threading.Lock(), threading.Lock()


class OpenVinoNetwork(nn.Module):
    """Apply a network by OpenVINO, on the CPU.

    Args:
        network: in evaluation mode, on the CPU. When its weights change it is compiled anew.
        spec: name and arguments of the network, as metadata state them.
        precision: "fp32" or "bf16".
        layers: names of layers whose channel means are returned as well.
    """

    def __init__(
        self, network: nn.Module, spec: Mapping[str, Any], precision: str = "fp32", layers: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.network, self.spec, self.precision, self.layers = network, spec, precision, tuple(layers)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, C, ...) to logits (B, K, ...); with layers also to their means, (B, M).

        Raises:
            UserError: if OpenVINO cannot take the network.
        """
        return self.compiled(images.shape[1:], single=len(images) == 1)(images)

    def compiled(self, image_shape: Sequence[int], single: bool = False) -> _Model:
        """Return what maps images of a shape (C, ...), compiled when first asked for.

        A single one, such as a picture, is not padded to a batch, which would take as long as one.

        Raises:
            UserError: if OpenVINO cannot take the network, or this process was forked from one that
                uses it.
        """
        _refuse_fork()
        shape = (1 if single else OPENVINO_BATCH[self.precision], *image_shape)
        weights = tuple(map(_version, self.network.state_dict().values()))
        streams = _streams(shape[0])
        key = self.precision, self.layers, shape, torch.get_num_threads()
        with _COMPILING:  # requests at the same time: one compiles
            known, models = _COMPILED.get(self.network, (None, {}))
            if known != weights:  # models of former weights go
                models = {}
                _COMPILED[self.network] = weights, models
            if key not in models:
                models[key] = _Model(self._load(shape, streams), shape, streams)
            return models[key]

    def _load(self, shape: tuple[int, ...], streams: int) -> CompiledModel:
        """Take the compiled model from the cache, else compile it and put it there."""
        started = time.perf_counter()
        core, _ = _core()
        settings = {
            "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp32": "f32"}[self.precision],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # processes beside each other would share some cores and leave others
        }
        key = self._key(shape, core)
        model = _from_cache(core, key, settings)
        how = "from the cache"
        if model is None:
            model, how = core.compile_model(self._convert(shape), "CPU", settings), "compiled"
            compiled_cache.write(key, _exported(model))
        logger.debug(f"OpenVINO model {how} in {time.perf_counter() - started:.1f} s")
        return model

    def _key(self, shape: tuple[int, ...], core: Core) -> str:
        """Return a hash of all that the compiled model depends on."""
        weights = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            weights.update(name.encode())
            weights.update(value.contiguous().flatten().view(torch.uint8).cpu().numpy())
        processor = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        code = code_digest("networks", "inference/backends"), package_versions(("monai", "torch"))
        made_by = [*code, import_openvino().get_version(), processor]
        asked = [weights.hexdigest(), shape, self.spec, self.precision, self.layers]
        text = json.dumps([made_by, asked], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _convert(self, shape: tuple[int, ...]) -> Any:
        """Convert the network by OpenVINO's frontend.

        `openvino.convert_model` would do so too, and report it to its makers.
        """
        openvino = import_openvino()
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        network = copy(self.network)  # a shallow one
        network.rearranged = True  # type: ignore[assignment]
        module = TorchNetwork(network, layers=self.layers).eval()
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a traced `if` on a size, which is static
                decoder = TorchScriptPythonDecoder(module, example_input=(torch.zeros(shape, dtype=torch.float32),))
                frontend = FrontEndManager().load_by_framework("pytorch")
                model = frontend.convert(frontend.load(decoder))
            model.inputs[0].get_node().set_partial_shape(openvino.PartialShape(shape))
            model.validate_nodes_and_infer_types()
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            name = self.spec.get("name", type(self.network).__name__)
            raise UserError(f"OpenVINO cannot take {name} ({reason}); expected: --backend torch") from error
        return model


def _version(value: Tensor) -> tuple[int, float]:
    """Return what differs when a tensor has been replaced or changed in place."""
    changes = float(value.double().abs().sum()) if value.is_inference() else value._version  # those count none
    return value.data_ptr(), changes


def _streams(batch: int) -> int:
    """Return how many requests of a batch work beside each other.

    Requests of a thread each take less time together than one after the other by all threads. There
    are no more of them than the images of a call fill.
    """
    return max(min(torch.get_num_threads(), BATCH_SIZE // batch), 1)


class _Model:
    """A compiled model that one thread at a time uses."""

    def __init__(self, compiled: CompiledModel, shape: tuple[int, ...], streams: int) -> None:
        self._requests = [compiled.create_infer_request() for _ in range(streams)]
        self._shape, self._lock = shape, threading.Lock()

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, C, ...) to the outputs, (B, ...) each."""
        found: list[list[Tensor]] = []
        running: deque[tuple[InferRequest, int]] = deque()
        with self._lock:
            try:
                for request, part in zip(cycle(self._requests), images.split(self._shape[0])):
                    if len(running) == len(self._requests):
                        found.append(_outputs(*running.popleft()))
                    padded = np.zeros(self._shape, np.float32)
                    padded[: len(part)] = part.detach().cpu().numpy()
                    request.start_async({0: padded}, share_inputs=True)
                    running.append((request, len(part)))
                found += [_outputs(*one) for one in running]
            finally:  # a call that ends early leaves none at work
                for request in self._requests:
                    with suppress(RuntimeError):  # of one that failed: raised above
                        request.wait()
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _outputs(request: InferRequest, count: int) -> list[Tensor]:
    """Wait for a request and return its outputs for the first images."""
    request.wait()
    return [torch.from_numpy(one.data[:count].copy()) for one in request.output_tensors]


def _refuse_fork() -> None:
    """Refuse to work in a process forked from one with a core, whose threads it would wait for."""
    if _core.cache_info().currsize and _core()[1] != os.getpid():
        raise UserError(
            "OpenVINO was in use before this process was forked, and its threads are not here; expected: processes "
            "started by spawn or forkserver, or weights that are first loaded in each process"
        )


@cache
def _core() -> tuple[Core, int]:
    """Return a core, which is never released, and the process that has its threads.

    The CPU plugin of OpenVINO 2026.4 gives the thread an alternate signal stack, and a released
    plugin can leave one behind that is gone: the next signal, such as Ctrl-C, would end the
    process with SIGSEGV.
    """
    return import_openvino().Core(), os.getpid()


def _from_cache(core: Core, key: str, settings: Mapping[str, Any]) -> CompiledModel | None:
    """Return the model that the cache holds; None if it holds none that can be used."""
    kept = compiled_cache.read(key)
    if kept is None:
        return None
    try:
        return core.import_model(io.BytesIO(kept), "CPU", dict(settings))  # precision too: it is not kept
    except RuntimeError as error:
        logger.info(f"the cached model cannot be used and is made anew ({error})")
        return None


def _exported(model: CompiledModel) -> bytes:
    exported = model.export_model()
    return bytes(exported.getvalue() if hasattr(exported, "getvalue") else exported)


def import_openvino() -> Any:
    """Import OpenVINO without packages that it would load on the way.

    `openvino_telemetry` sends data about its use to its makers, and writes to the user's home,
    whenever OpenVINO is imported by a user who has not opted out. `absl.logging` adds a log handler
    that closes a redirected standard error when MONAI configures logging. OpenVINO works without
    both.
    """
    with _IMPORTING:
        if "openvino" not in sys.modules:
            kept = {name: sys.modules.get(name) for name in ("openvino_telemetry", "absl")}
            sys.modules.update(dict.fromkeys(kept))  # type: ignore[arg-type]  # None marks what is absent
            try:
                import openvino
            finally:
                for name, module in kept.items():
                    del sys.modules[name]
                    if module is not None:
                        sys.modules[name] = module
        import openvino

        return openvino
