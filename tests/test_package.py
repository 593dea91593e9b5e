"""The wheel: what is in it, and that it works where nothing of the repository is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import numpy as np
import pytest
import yaml

from scripts.version import bundle_version


@pytest.fixture(scope="module")
def wheel(bundle_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(bundle_root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def contents(wheel: Path) -> dict[str, bytes]:
    """Every file of the wheel by its name, that of `dist-info` without the version."""
    with zipfile.ZipFile(wheel) as archive:
        return {re.sub(r"^[^/]*\.dist-info", "info", name): archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(contents: dict[str, bytes]) -> Message:
    return message_from_bytes(contents["info/METADATA"])


def requirements(path: Path) -> set[str]:
    """Names and least versions in a requirements file, without comments and other files."""
    lines = (line.split("#")[0].split(";")[0].strip() for line in path.read_text().splitlines())
    return {line.lower() for line in lines if line and not line.startswith("-")}


def test_version_and_readme_are_those_of_the_bundle(metadata: Message, bundle_root: Path) -> None:
    assert metadata["Version"] == bundle_version()
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_payload() == (bundle_root / "README.md").read_text()


def test_dependencies_are_those_of_the_requirements_files(metadata: Message, bundle_root: Path) -> None:
    found: dict[str, set[str]] = {"core": set(), **{extra: set() for extra in metadata.get_all("Provides-Extra", [])}}
    for line in metadata.get_all("Requires-Dist", []):
        name, _, marker = line.partition(";")
        extra = re.search(r"extra == .(\w+)", marker)
        found[extra[1] if extra else "core"].add(name.lower())
    assert found.keys() == {"core", "dicom", "openvino", "train", "cluster", "pacs"}
    assert found == {name: requirements(bundle_root / f"requirements-{name}.txt") for name in found}
    pinned = {line.split("==")[0].lower() for line in requirements(bundle_root / "constraints.txt")}
    assert {re.split("[>=<]", line)[0] for lines in found.values() for line in lines} <= pinned


def test_the_wheel_holds_the_package_and_nothing_else(contents: dict[str, bytes], bundle_root: Path) -> None:
    expected = {
        f"lung_infection_ct/{path.relative_to(bundle_root).as_posix().removeprefix('scripts/')}"
        for folder in ("scripts", "configs", "models")
        for path in (bundle_root / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in contents if not name.startswith("info/")} == expected
    of_others = ("docs/data_license.txt", "scripts/viewer/assets/niivue.LICENSE.txt")
    assert {f"info/licenses/{name}" for name in ("LICENSE", *of_others)} <= contents.keys()
    assert "lung_infection_ct/py.typed" in contents


def test_wheel_and_source_distribution_hold_all_weights(bundle_root: Path, tmp_path: Path) -> None:
    copy, out, caches = tmp_path / "copy", tmp_path / "dist", shutil.ignore_patterns("__pycache__")
    for name in ("scripts", "configs", "models", "docs"):
        shutil.copytree(bundle_root / name, copy / name, ignore=caches)
    for path in filter(Path.is_file, bundle_root.iterdir()):
        shutil.copy(path, copy)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    expected = {f"{name}.{suffix}" for name in ("model", "full", "classes") for suffix in ("pt", "json")}
    with zipfile.ZipFile(wheel) as archive, tarfile.open(source) as packed:
        for names in (archive.namelist(), packed.getnames()):
            assert {Path(name).name for name in names if Path(name).parent.name == "models"} == expected


def test_packed_configs_name_the_package(contents: dict[str, bytes], bundle_root: Path) -> None:
    """A config of the wheel differs from that of the bundle in the package's name only."""
    for path in (bundle_root / "configs").rglob("*.*"):
        packed = contents[f"lung_infection_ct/{path.relative_to(bundle_root)}"].decode()
        assert packed.replace("lung_infection_ct.", "scripts.") == path.read_text()
        if path.suffix == ".yaml":
            assert not re.search(r"\bscripts\.[a-z]", str(yaml.safe_load(packed)))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python where the package is installed and nothing of the repository is in sight."""
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True)

    return run


FORMS = """
import sys
import nibabel, numpy, SimpleITK
from lung_infection_ct import InfectionSegmenter
scan, weights, written = sys.argv[1:]
image = nibabel.load(scan)
forms = {"path": scan, "nibabel": image, "SimpleITK": SimpleITK.ReadImage(scan)}
forms["array"] = numpy.asarray(image.dataobj), image.affine
segmenter = InfectionSegmenter(weights, device="cpu", threshold=0.53)
expected = numpy.asarray(nibabel.load(written).dataobj)
equal = [name for name, form in forms.items() if (segmenter.predict(form).mask == expected).all()]
print(*equal, 0 < expected.mean() < 1, "scripts" in sys.modules)
"""


@pytest.mark.slow
def test_the_installed_package_segments_in_every_form(
    run: Callable[..., subprocess.CompletedProcess[str]],
    make_scan: Callable[..., tuple[Path, Path]],
    weights: Path,
    tmp_path: Path,
) -> None:
    scan, _ = make_scan(affine=np.diag([-2.0, -2.0, 5.0, 1.0]))
    options = ("--weights", weights, "--threshold", "0.53", "--device", "cpu")
    done = run("-m", "lung_infection_ct", "segment", scan, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    done = run("-c", FORMS, scan, weights, tmp_path / "out" / "scan" / "infection.nii.gz")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["path", "nibabel", "SimpleITK", "array", "True", "False"]


@pytest.mark.slow
def test_the_installed_configs_run(
    run: Callable[..., subprocess.CompletedProcess[str]],
    installed: Path,
    make_scan: Callable[..., tuple[Path, Path]],
    weights: Path,
    tmp_path: Path,
) -> None:
    scan, _ = make_scan()
    config = installed / "lung_infection_ct/configs/inference.yaml"
    words = ("--dataset_dir", scan.parent, "--checkpoint", weights, "--output_dir", tmp_path / "masks")
    done = run("-m", "monai.bundle", "run", "inference", "--config_file", config, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "masks" / "scan_infection.nii.gz").is_file()


@pytest.mark.slow
def test_a_program_that_uses_the_package_is_type_checked(installed: Path, tmp_path: Path) -> None:
    """`py.typed` lets mypy see the types; without it the wrong argument would pass."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "installed.pth").write_text(str(installed))
    program = tmp_path / "program.py"
    program.write_text(
        "from lung_infection_ct import InfectionSegmenter, Result\n"
        'result: Result = InfectionSegmenter().predict("scan.nii.gz")\n'
        "warnings: list[str] = result.warnings\n"
        "InfectionSegmenter(device=1)\n"
    )
    command = [sys.executable, "-m", "mypy", "--python-executable", str(venv / "bin/python"), "--config-file", ""]
    done = subprocess.run([*command, str(program)], cwd=tmp_path, capture_output=True, text=True)
    (error,) = [line for line in done.stdout.splitlines() if "error:" in line]
    assert error.startswith("program.py:4:") or "program.py:4: error" in error, done.stdout
