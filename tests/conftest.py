"""Scans and data sets for the tests, made anew in a temporary folder."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts import settings
from scripts.files import CACHE
from scripts.inference.backends import choice
from scripts.inference.metadata import write_checkpoint
from scripts.metrics import counts
from scripts.networks.registry import create_network
from scripts.precision import mixed_precision
from tests import refusing_device

pytest_plugins = ("tests.scan_fixtures",)
ROOT = Path(__file__).resolve().parent.parent

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
OBLIQUE = np.array([[-0.68, 0.14, 0.3, 90.0], [-0.14, -0.68, 0.4, 110.0], [0.03, 0.0, 4.9, -200.0], [0, 0, 0, 1.0]])
AXES = ["".join(codes) for order in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*order)]


@pytest.fixture(params=AXES)
def axes(request: pytest.FixtureRequest) -> str:
    """Each of the 48 orders and directions of axes."""
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the tests, and the processes that they start, out of the user's cache."""
    with mock.patch.dict(os.environ, {CACHE: str(tmp_path_factory.mktemp("cache"))}):
        yield


@pytest.fixture(scope="session", autouse=True)
def auto_is_torch_in_float32() -> Iterator[None]:
    """`auto` finds neither OpenVINO nor bfloat16: tests are the same on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "openvino_installed", lambda: False)
        patch.setattr(choice, "mixed_precision", lambda amp, device: mixed_precision(amp, device) and torch.float32)
        yield


@pytest.fixture(scope="session")
def bundle_root() -> Path:
    """The bundle's folder."""
    return ROOT


@pytest.fixture(scope="session")
def lung_ct_data() -> Path:
    """The folder of real CT that LUNG_CT_DATA names; skips where it is unset."""
    folder = os.environ.get("LUNG_CT_DATA")
    if not folder:
        pytest.skip("LUNG_CT_DATA is unset: it names the folder of real CT (docs/data.md)")
    return Path(folder)


@pytest.fixture(scope="session")
def sealed() -> set[str]:
    """Patients that are kept for the final measurement:
    nothing may be trained or chosen on them."""
    return {"coronacases_003", "coronacases_006", "coronacases_009"}


def write_random_checkpoint(
    path: Path, seed: int = 0, base_width: int = 4, size: int = 64, steps: Mapping[str, object] = {}, **metadata: object
) -> Path:
    """Writes a narrow network as initialised and metadata of a synthetic training beside it."""
    torch.manual_seed(seed)
    network = create_network("resunet", base_width=base_width)
    preprocessing = {"size": size, "window": [-1250, 250], "intensity": "auto", **steps}
    content = {"data": {"name": "phantom", "synthetic": True}, "figures": {}, **metadata}
    write_checkpoint(path, network.state_dict(), network=network.spec, preprocessing=preprocessing, **content)
    return path


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[..., Path]:
    """Writes random weights and their metadata."""
    return write_random_checkpoint


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, the same for all tests of a module."""
    return write_random_checkpoint(tmp_path_factory.mktemp("weights") / "model.pt")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of `models/`, with both models: narrow ones that mark different voxels."""
    folder = tmp_path / "bundle" / "models"
    folder.mkdir(parents=True)
    write_random_checkpoint(folder / "model.pt")
    write_random_checkpoint(folder / "full.pt", seed=1, base_width=8)
    monkeypatch.setattr("scripts.inference.shipped.MODELS", folder)
    return folder


def turned_image(image: nib.Nifti1Image, axes: str) -> nib.Nifti1Image:
    """The same scan stored in another order or direction of axes, such as "SRA"."""
    orientations = nib.orientations
    now, wanted = orientations.io_orientation(image.affine), orientations.axcodes2ornt(axes)
    return image.as_reoriented(orientations.ornt_transform(now, wanted))


@pytest.fixture(scope="session")
def turned() -> Callable[..., nib.Nifti1Image]:
    """Stores a scan in another order or direction of its axes."""
    return turned_image


def small_scan(seed: int = 0, shape: tuple[int, int, int] = (40, 36, 6)) -> tuple[np.ndarray, np.ndarray]:
    """A scan without any symmetry: HU (X, Y, Z) in LPS with a soft-tissue body,
    air and one bright lesion."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(-850, 40, shape)
    hu[:3], hu[:, -5:] = -1000, 60
    label = np.zeros(shape, np.uint8)
    x, y = shape[0] // 2 + seed % 3, shape[1] // 3
    label[x : x + 8, y : y + 10, 1:-1] = 1
    hu[label > 0] += 500
    return hu.astype(np.int16), label


def save_scan(path: Path, array: np.ndarray, affine: np.ndarray = LPS, code: int = 1) -> Path:
    """Writes NIfTI with both forms set."""
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


@pytest.fixture
def make_scan(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Writes one scan and its label, returns their paths."""

    def make(name: str = "scan", seed: int = 0, affine: np.ndarray = LPS, **kwargs: object) -> tuple[Path, Path]:
        hu, label = small_scan(seed, **kwargs)  # type: ignore[arg-type]
        folder = tmp_path / "scans"
        return (
            save_scan(folder / f"{name}.nii.gz", hu, affine),
            save_scan(tmp_path / "labels" / f"{name}.nii.gz", label, affine),
        )

    return make


def write_dataset(folder: Path, cases: int = 4, folds: int = 2, **kwargs: object) -> Path:
    """Writes a data set of small scans with datalist.json; returns its folder."""
    training = []
    for index in range(cases):
        hu, label = small_scan(index, **kwargs)  # type: ignore[arg-type]
        name = f"case_{index:02d}"
        paths = {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"}
        save_scan(folder / paths["image"], hu)
        save_scan(folder / paths["label"], label)
        training.append({**paths, "patient": name, "name": name, "fold": index % folds})
    datalist = {"name": "small", "layout": "generic", "split": "patient", "folds": folds, "seed": 0, "warnings": []}
    datalist |= {"training": training, "test": [], "unlabeled": []}
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set of small scans with datalist.json, two folds; returns its folder."""
    return partial(write_dataset, tmp_path / "dataset")


@pytest.fixture
def make_class_dataset(make_dataset: Callable[..., Path]) -> Callable[..., Path]:
    """Writes `make_dataset`'s data set with multi-class labels:
    within every lesion left of the middle 1, right 2."""

    def make(**kwargs: object) -> Path:
        folder = make_dataset(**kwargs)
        datalist = json.loads((folder / "datalist.json").read_text())
        for case in datalist["training"]:
            label = np.asarray(nib.load(folder / case["label"]).dataobj)
            middle = int(np.flatnonzero(label.any(axis=(1, 2))).mean())
            classes = label.copy()
            classes[middle:] *= 2
            case["classes"] = f"classes/{case['name']}.nii.gz"
            save_scan(folder / case["classes"], classes)
        (folder / "datalist.json").write_text(json.dumps(datalist))
        return folder

    return make


@pytest.fixture
def one_slice_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews show one axial slice: drawing all of them takes half of what a small scan takes."""
    monkeypatch.setattr("scripts.report.preview.SHOWN_SLICES", 1)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Lets torch work on one thread for the tests of a module from here on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(
    params=[
        f"{refusing_device.NAME}:0",
        pytest.param(
            "cuda:0",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
        ),
    ]
)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A device that refuses to be read from the host; CUDA where there is one."""
    if not request.param.startswith(refusing_device.NAME):
        yield request.param
        return
    refusing_device.register()
    monkeypatch.setattr(counts, "WITHOUT_FLOAT64", {"mps", refusing_device.NAME})
    monkeypatch.setattr(settings, "CPU_KERNELS", {"cpu", refusing_device.NAME})  # it computes on the host
    with torch.autograd.set_multithreading_enabled(False):  # its threads know the devices of the first backward pass
        yield request.param
