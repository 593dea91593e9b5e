"""Backends of inference: which is chosen, that they agree, what is kept in the cache."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.data.phantom.scan import make_phantom
from scripts.errors import UserError
from scripts.files import CACHE
from scripts.inference.backends import choice, compiled_cache, openvino_network
from scripts.inference.backends.choice import OPENVINO_BATCH, TORCH, Backend, choose_backend
from scripts.inference.backends.openvino_network import OpenVinoNetwork
from scripts.inference.backends.torch_network import TorchNetwork
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.inferer import ScanInferer
from scripts.inference.ood import OODScore
from scripts.inference.segmenter import Segmenter
from scripts.inference.tta import SETTLED_LOGITS, average_over_flips
from scripts.io.reading import read_scan
from scripts.networks.registry import create_network
from scripts.pipeline.case import CaseSegmenter
from scripts.pipeline.inputs import expand_inputs
from scripts.precision import mixed_precision
from scripts.report.report import describe_model
from tests.bundle_runner import run_inference

LAYER = "decoder.bridge"
BF16 = mixed_precision("auto", "cpu") is torch.bfloat16
with_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
in_bfloat16 = pytest.mark.skipif(not BF16, reason="this processor has no bfloat16 instructions")
BACKENDS = [
    pytest.param(Backend("torch", "bf16"), marks=in_bfloat16),
    pytest.param(Backend("openvino", "fp32"), marks=with_openvino),
    pytest.param(Backend("openvino", "bf16"), marks=[with_openvino, in_bfloat16]),
]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, bool], None]:
    """Sets what a machine has: OpenVINO, and bfloat16 on every device."""

    def has(openvino: bool, bfloat16: bool) -> None:
        able = torch.bfloat16 if bfloat16 else torch.float32
        monkeypatch.setattr(choice, "openvino_installed", lambda: openvino)
        monkeypatch.setattr(choice, "mixed_precision", lambda amp, _: torch.float32 if amp == "false" else able)

    return has


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_network("resunet", base_width=4, deep_supervision=False).eval()


def make_plain() -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = {"first": torch.nn.Conv2d(1, 8, 3, padding=1), "relu": torch.nn.ReLU()}
    return torch.nn.Sequential(OrderedDict(layers | {"out": torch.nn.Conv2d(8, 1, 3, padding=1)})).eval()


@pytest.fixture
def plain() -> torch.nn.Sequential:
    """Two convolutions, where it does not matter what is compiled: seconds less each time."""
    return make_plain()


@pytest.mark.parametrize(
    ("device", "openvino", "bfloat16", "expected"),
    [
        ("cpu", True, True, ("openvino", "bf16")),
        ("cpu", True, False, ("openvino", "fp32")),
        ("cpu", False, True, ("torch", "bf16")),
        ("cpu", False, False, ("torch", "fp32")),
        ("cuda:0", True, True, ("torch", "bf16")),
        ("cuda:0", True, False, ("torch", "fp32")),
        ("mps", True, False, ("torch", "fp32")),
    ],
)
def test_auto_is_the_fastest_that_there_is(
    device: str, openvino: bool, bfloat16: bool, expected: tuple[str, str], machine: Callable[[bool, bool], None]
) -> None:
    machine(openvino, bfloat16)
    assert choose_backend(device=device) == Backend(*expected)
    assert choose_backend("torch", device=device) == Backend("torch", expected[1])
    assert choose_backend("torch", "fp32", device) == TORCH


def test_amp_says_what_auto_means(machine: Callable[[bool, bool], None]) -> None:
    machine(False, True)
    found = [choose_backend(amp=amp).precision for amp in ("false", "true", "auto", "null", None)]
    assert found == ["fp32", "bf16", "bf16", "bf16", "bf16"]
    assert choose_backend(precision="bf16", amp="false").precision == "bf16"


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"backend": "onnx"}, "backend is 'onnx'; expected: auto, torch, openvino"),
        ({"precision": "int8"}, "precision is 'int8'; expected: auto, fp32, bf16"),
        ({"backend": "openvino"}, "pip install openvino"),
        ({"backend": "openvino", "device": "cuda:0"}, "expected: --device cpu"),
        ({"precision": "bf16"}, r"is not known to have \(AMX-BF16 or AVX512-BF16\)"),
        ({"precision": "bf16", "device": "mps"}, "which mps lacks"),
    ],
)
def test_what_cannot_be_had_is_refused(asked: dict[str, str], text: str, machine: Callable[[bool, bool], None]) -> None:
    machine(False, False)
    with pytest.raises(UserError, match=text):
        choose_backend(**asked)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_on_logits_and_features(backend: Backend, network: torch.nn.Module) -> None:
    """Seven slices: in bfloat16 the second request is padded."""
    metadata = {"preprocessing": {}, "network": {"name": "resunet"}}
    scan = torch.randn(1, 1, 64, 64, 7)
    found, features = [], []
    with torch.inference_mode():
        for one in (TORCH, backend):
            inferer = ScanInferer(metadata, 8, 2, one, (LAYER,))
            found.append(inferer(scan, network).float())
            features.append(inferer.features.take())
    assert features[1].shape == (7, 32)
    for expected, other in (found, features):
        tolerance = 1e-5 if backend.precision == "fp32" else 0.03
        assert (other - expected).abs().max() <= tolerance * expected.abs().max()
    assert not torch.equal(*found)


@pytest.fixture
def batches_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in bfloat16, on any processor."""
    monkeypatch.setitem(OPENVINO_BATCH, "fp32", 4)


@with_openvino
@pytest.mark.usefixtures("batches_of_four")
def test_a_padded_batch_gives_the_bits_of_a_full_one(network: torch.nn.Module) -> None:
    images = torch.randn(7, 1, 32, 32)
    apply = OpenVinoNetwork(network, {})
    (found,) = apply(images)
    assert len(found) == 7
    (shifted,) = apply(images[3:])
    assert torch.equal(shifted, found[3:])


@with_openvino
@pytest.mark.usefixtures("batches_of_four")
def test_one_image_is_not_padded_and_keeps_its_bits(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    images, apply, shapes = torch.randn(4, 1, 32, 32), OpenVinoNetwork(network, {}), []
    load = OpenVinoNetwork._load
    monkeypatch.setattr(
        OpenVinoNetwork, "_load", lambda self, shape, *how: shapes.append(shape) or load(self, shape, *how)
    )
    (found,) = apply(images)
    for index in range(4):
        assert torch.equal(apply(images[index : index + 1])[0], found[index : index + 1])
    assert shapes == [(4, 1, 32, 32), (1, 1, 32, 32)]


@pytest.fixture
def three_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads, a request each; five images then leave one of them idle at the end."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


@with_openvino
@pytest.mark.usefixtures("three_requests")
def test_requests_beside_each_other_keep_order_and_bits(plain: torch.nn.Module) -> None:
    images, apply = torch.randn(5, 1, 32, 32), OpenVinoNetwork(plain, {}, layers=("first",))
    assert len(apply.compiled(images.shape[1:])._requests) == 3
    together, alone = apply(images), [apply(image[None]) for image in images]
    for number in range(2):
        assert torch.equal(together[number], torch.cat([one[number] for one in alone]))


@with_openvino
def test_after_an_interrupted_call_the_next_one_works(plain: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes while requests are at work; one that is cannot be started again."""
    images, apply = torch.randn(5, 1, 32, 32), OpenVinoNetwork(plain, {})
    (expected,) = apply(images)
    monkeypatch.setattr(openvino_network, "_outputs", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        apply(images)
    monkeypatch.undo()
    assert torch.equal(apply(images)[0], expected)


class Request:
    """A request that starts, and ends when it is waited for."""

    def __init__(self, fails: bool) -> None:
        self.fails, self.works = fails, False
        self.output_tensors = [SimpleNamespace(data=np.zeros((1, 1, 8, 8), np.float32))]

    def start_async(self, *_: object, **__: object) -> None:
        self.works = True

    def wait(self) -> None:
        self.works = False
        if self.fails:
            raise RuntimeError("the request has failed")


def test_after_a_request_that_failed_none_is_at_work() -> None:
    requests = [Request(fails=True), Request(fails=False)]
    compiled = SimpleNamespace(create_infer_request=iter(requests).__next__)
    apply = openvino_network._Model(compiled, (1, 1, 8, 8), streams=2)
    with pytest.raises(RuntimeError, match="has failed"):
        apply(torch.zeros(2, 1, 8, 8))
    assert not any(request.works for request in requests)
    requests[0].fails = False
    assert apply(torch.zeros(2, 1, 8, 8))[0].shape == (2, 1, 8, 8)


@with_openvino
def test_another_number_of_threads_has_requests_of_its_own(
    plain: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Dask worker knows its threads only once it works."""
    apply, found = OpenVinoNetwork(plain, {}), []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(len(apply.compiled((1, 32, 32))._requests))
    assert found == [1, 3]


@with_openvino
def test_a_network_of_inference_mode_is_compiled_as_any_other(plain: torch.nn.Module) -> None:
    images = torch.rand(2, 1, 32, 32)
    expected = OpenVinoNetwork(plain, {})(images)[0]
    with torch.inference_mode():
        made = make_plain()
        made.load_state_dict(plain.state_dict())
        apply = OpenVinoNetwork(made, {})
        assert torch.equal(apply(images)[0], expected)
        made.load_state_dict({name: value / 2 for name, value in plain.state_dict().items()})
        torch.testing.assert_close(apply(images)[0], made(images), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(apply(images)[0], expected, atol=1e-3)


NEAR, FAR = 0.0, -12.0
"""Offsets of a map: around the threshold of 0.5, and far below it."""


@pytest.mark.parametrize("backend", [TORCH, *BACKENDS])
@pytest.mark.parametrize(("offset", "threshold"), [(NEAR, 0.5), (FAR, 0.5), (FAR, 1e-6), (FAR, None)])
def test_slices_that_their_first_view_settles_are_seen_once(
    backend: Backend, offset: float, threshold: float | None, plain: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch in float32 applies every view, and so does everybody who wants more than a mask."""
    scan, metadata = torch.randn(1, 1, 32, 32, 4), {"preprocessing": {}, "network": {"name": "plain"}}
    applied: list[int] = []

    def counted(apply: Callable[..., Any], images: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return average_over_flips(lambda seen: applied.append(len(seen)) or apply(seen), images, *args, **kwargs)

    with torch.inference_mode():
        plain.out.bias.fill_(offset)
        inferer = ScanInferer(metadata, 4, 4, backend, layers=("first",), threshold=threshold)
        monkeypatch.setattr("scripts.inference.inferer.average_over_flips", counted)
        found = inferer(scan, plain)
        monkeypatch.undo()
        whole = ScanInferer(metadata, 4, 4, backend)(scan, plain)
        first = ScanInferer(metadata, 4, 1, backend)(scan, plain)
    settled = backend != TORCH and offset == FAR and threshold == 0.5
    assert applied == ([4] if settled else [4, 4, 4, 4])
    assert len(inferer.features.take()) == 4  # of the first view
    assert torch.equal(found, first if settled else whole)
    assert not torch.equal(first, whole)


@with_openvino
def test_the_ood_score_is_that_of_the_slices_as_they_are(
    make_checkpoint: Callable[..., Path], tmp_path: Path, machine: Callable[[bool, bool], None]
) -> None:
    """In however many views they are seen: of twelve slices eight are settled by the first."""
    machine(True, False)
    learnt = OODScore({LAYER: 32}, (0.0,) * 32, (1.0,) * 32, ((0.0,) * 32,), 1e9)
    weights = make_checkpoint(tmp_path / "model.pt", familiarity=learnt.as_metadata())
    values = np.broadcast_to(np.linspace(-1000, 0, 64)[None, :, None], (64, 64, 12)).copy()
    values[..., :4], values[:20, :20, :4] = -1000, 0
    nib.save(nib.Nifti1Image(values.astype(np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz")
    slices = HounsfieldSlices(scan, "hu")
    given = {"backend": "openvino", "precision": "fp32", "keep_outside": True}
    views = Segmenter(weights, "cpu", test_time_flips=4, **given)
    inputs = torch.stack([views.slice_input(slices[index]) for index in range(12)])[:, None]
    apply = TorchNetwork(views.predictor.network, layers=(LAYER,))
    with torch.inference_mode():
        logits, means = apply(inputs)
        flipped = float(learnt(apply(inputs.flip(2))[1]).mean())
    first = logits.amax(dim=(1, 2, 3))
    assert first[4:].max() < first[:4].min()
    limit = (first[4:].max() + first[:4].min()) / 2 + SETTLED_LOGITS
    found = [
        Segmenter(weights, "cpu", float(torch.sigmoid(limit)), test_time_flips=flips, **given)
        .segment(scan, slices)
        .ood_score
        for flips in (4, 1)
    ]
    assert found == pytest.approx([float(learnt(means).mean())] * 2, rel=1e-4)
    assert abs(flipped - found[0]) > 1e-3


def test_without_features_torch_in_float32_is_the_network_itself(network: torch.nn.Module) -> None:
    seen = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    with mock.patch.object(TorchNetwork, "forward", side_effect=AssertionError):
        ScanInferer({"preprocessing": {}}, backend=TORCH)(torch.rand(1, 1, 32, 32, 9), network)
    assert [shape[0] for shape in seen] == [8, 1]


@with_openvino
@pytest.mark.skipif(sys.platform != "linux", reason="reads the signal stack by glibc")
def test_networks_that_come_and_go_leave_the_signal_stack_alone() -> None:
    """A stack of a released plugin would be gone, and the next signal would end the process."""

    def stack() -> tuple[int, ...]:
        found = (ctypes.c_size_t * 3)()  # stack_t: address, flags, size
        assert ctypes.CDLL(None).sigaltstack(None, found) == 0
        return tuple(found)

    stacks, alive = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        alive.append(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1)).eval())
        OpenVinoNetwork(alive[-1], {"name": f"plain {seed}"})(torch.zeros(1, 1, 16, 16))
        stacks.append(stack())
    while alive:
        del alive[0]  # the first one goes first
        gc.collect()
        stacks.append(stack())
    assert len(set(stacks)) == 1


_FORKED = """
import os
import torch
from scripts.errors import UserError
from scripts.inference.backends.openvino_network import OpenVinoNetwork
from tests.inference.test_backends import make_plain

network = OpenVinoNetwork(make_plain(), {"name": "plain"})
network(torch.zeros(1, 1, 16, 16))
child = os.fork()
if not child:
    try:
        network(torch.zeros(1, 1, 16, 16))
    except UserError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
network(torch.zeros(1, 1, 16, 16))
print("goes on")
"""


@with_openvino
def test_a_forked_process_is_refused_and_does_not_wait(bundle_root: Path) -> None:
    words = [sys.executable, "-W", "ignore", "-c", _FORKED]
    done = subprocess.run(words, cwd=bundle_root, capture_output=True, text=True, timeout=120)
    refused, goes_on = done.stdout.splitlines() or ("", done.stderr[-2000:])
    assert "before this process was forked" in refused
    assert goes_on == "goes on"


@with_openvino
def test_openvino_forms_no_fused_map_and_leaves_the_network_as_it_was(network: torch.nn.Module, cache: Path) -> None:
    formed: list[object] = []
    network.fusion.register_forward_hook(lambda *call: formed.append(call))
    images = torch.randn(1, 1, 48, 48)
    (logits,) = OpenVinoNetwork(network, network.spec)(images)
    assert formed == []
    assert len(list(cache.iterdir())) == 1  # it was converted now
    torch.testing.assert_close(logits, network(images), rtol=1e-4, atol=1e-5)
    assert len(formed) == 1


@with_openvino
def test_a_network_that_draws_dropout_is_applied_as_it_is(network: torch.nn.Module) -> None:
    inferer = ScanInferer({"preprocessing": {}}, backend=Backend("openvino", "fp32"))
    with mock.patch.object(OpenVinoNetwork, "forward", side_effect=AssertionError):
        inferer(torch.rand(1, 1, 32, 32, 2), network.train())


def test_every_view_of_a_network_that_draws_dropout_is_applied(network: torch.nn.Module) -> None:
    inferer = ScanInferer({"preprocessing": {}}, 4, 4, Backend("openvino", "fp32"), threshold=0.999999)
    calls: list[object] = []
    network.register_forward_hook(lambda *call: calls.append(call))
    inferer(torch.rand(1, 1, 32, 32, 2), network.train())
    assert len(calls) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_agree_and_run_inference_gives_the_same(
    backend: Backend, make_checkpoint: Callable[..., Path], tmp_path: Path, machine: Callable[[bool, bool], None]
) -> None:
    machine(True, True)
    phantom = make_phantom(2, shape=(96, 96, 40), spacing=(3.6, 3.6, 8.0))
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), tmp_path / "scan.nii.gz")
    weights = make_checkpoint(tmp_path / "model.pt", steps={"field_of_view": "lungs"})
    scan = read_scan(tmp_path / "scan.nii.gz")
    slices = HounsfieldSlices(scan)
    plain = Segmenter(weights, "cpu", backend="torch", precision="fp32").segment(scan, slices, probability=True)
    threshold = float(np.median(plain.probability[plain.probability > 0])) / 255
    chosen = {"backend": backend.name, "precision": backend.precision}
    mask = Segmenter(weights, "cpu", threshold, **chosen).segment(scan, slices).mask
    expected = run_inference(tmp_path / "scan.nii.gz", weights, tmp_path / "out", threshold=threshold, **chosen)
    np.testing.assert_array_equal(mask, np.asarray(nib.load(expected).dataobj))
    reference = Segmenter(weights, "cpu", threshold, backend="torch", precision="fp32").segment(scan, slices).mask
    both = 2 * np.count_nonzero(mask & reference) / (np.count_nonzero(mask) + np.count_nonzero(reference))
    assert 0.98 < both <= 1  # half of the voxels lie near the threshold here


def test_results_say_what_made_them_and_depend_on_it(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"a scan")
    (case,) = expand_inputs([tmp_path / "scan.nii.gz"])
    model = CaseSegmenter(Segmenter(weights, "cpu"))
    assert model.model["backend"] == {"name": "torch", "precision": "fp32", "version": torch.__version__}
    model.segmenter.backend = Backend("torch", "bf16")
    other = CaseSegmenter(model.segmenter)
    assert other.model == {**model.model, "backend": {**model.model["backend"], "precision": "bf16"}}
    assert other.key(case) != model.key(case)
    assert describe_model(model.segmenter)["operating_point"]["test_time_flips"] is False


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache" / compiled_cache.NAME


def converted(network: torch.nn.Module, precision: str = "fp32") -> tuple[torch.Tensor, int]:
    """What a network gives that is loaded anew, and how often it was converted for that."""
    openvino_network._COMPILED.clear()
    images = torch.linspace(-1, 1, 2 * 32 * 32).reshape(2, 1, 32, 32)
    convert = OpenVinoNetwork._convert
    with mock.patch.object(OpenVinoNetwork, "_convert", autospec=True, side_effect=convert) as counted:
        (found,) = OpenVinoNetwork(network, {}, precision)(images)
    return found, counted.call_count


@with_openvino
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=in_bfloat16)])
def test_a_compiled_model_is_kept_and_gives_the_same_bits(precision: str, plain: torch.nn.Module, cache: Path) -> None:
    found, count = converted(plain, precision)
    again, later = converted(plain, precision)
    assert (count, later) == (1, 0)
    assert torch.equal(found, again)
    (file,) = cache.iterdir()
    for damage in (file.read_bytes()[:-9], b"", hashlib.sha256(b"no model").digest() + b"no model"):
        file.write_bytes(damage)
        mended, count = converted(plain, precision)
        assert torch.equal(mended, found)
        assert count == 1
        assert converted(plain, precision)[1] == 0


@with_openvino
def test_other_weights_are_another_model(plain: torch.nn.Module, cache: Path) -> None:
    apply, images = OpenVinoNetwork(plain, {}), torch.rand(1, 1, 32, 32)
    before = apply(images)[0]
    with torch.no_grad():
        next(iter(plain.parameters())).mul_(1.5)
        expected = plain(images)
    torch.testing.assert_close(apply(images)[0], expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, expected, atol=1e-3)
    assert len(list(cache.iterdir())) == 2


@with_openvino
def test_other_code_or_another_torch_is_another_model(
    plain: torch.nn.Module, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network in `scripts/networks/` may be changed while name, arguments and weights stay."""
    assert [converted(plain)[1] for _ in range(2)] == [1, 0]
    rooms: list[str] = []
    monkeypatch.setattr(openvino_network, "code_digest", lambda *names: rooms.extend(names) or "other code")
    assert [converted(plain)[1] for _ in range(2)] == [1, 0]
    assert "networks" in rooms
    monkeypatch.setattr(openvino_network, "package_versions", lambda names: {name: "99" for name in names})
    assert [converted(plain)[1] for _ in range(2)] == [1, 0]
    assert len(list(cache.iterdir())) == 3


@with_openvino
def test_settings_that_take_turns_are_loaded_once_each(plain: torch.nn.Module, cache: Path) -> None:
    images, load = torch.rand(1, 1, 32, 32), OpenVinoNetwork._load
    alone, more = OpenVinoNetwork(plain, {}), OpenVinoNetwork(plain, {}, layers=("first",))
    with mock.patch.object(OpenVinoNetwork, "_load", autospec=True, side_effect=load) as loaded:
        for apply in (alone, more, alone, more):
            apply(images)
    assert loaded.call_count == 2


@with_openvino
@pytest.mark.parametrize("setting", ["off", "a file"])
def test_without_a_cache_the_network_is_converted_each_time(
    setting: str, plain: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(CACHE, setting if setting == "off" else str(tmp_path / "file"))
    assert [converted(plain)[1] for _ in range(2)] == [1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_writers_at_the_same_time_leave_whole_files_and_few(cache: Path) -> None:
    content = {f"key{number}": bytes([number]) * 50_000 for number in range(3)}

    def work(number: int) -> None:
        key = f"key{number % 3}"
        compiled_cache.write(key, content[key])
        assert compiled_cache.read(key) == content[key]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(60)))
    assert {path.name for path in cache.iterdir()} == set(content)
    for number in range(compiled_cache.KEPT + 3):
        compiled_cache.write(f"further{number}", b"x")
    assert len(list(cache.iterdir())) == compiled_cache.KEPT


@with_openvino
def test_openvino_tells_nobody(tmp_path: Path) -> None:
    """The package would, whenever it is imported."""
    code = """if True:
        import sys
        from scripts.inference.backends.openvino_network import import_openvino
        assert import_openvino().get_version()
        assert "openvino_telemetry" not in sys.modules
        import openvino.tools.ovc as tools
        assert "stub" in type(tools.telemetry).__module__, type(tools.telemetry)
    """
    root, environment = Path(__file__).resolve().parents[2], {"HOME": str(tmp_path), "PATH": ""}
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
