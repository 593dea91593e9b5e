"""The wheel: what is in it, and that it works where nothing of the repository is."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

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
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return {line.lower() for line in lines if line and not line.startswith("-")}


def test_version_and_readme_are_those_of_the_bundle(metadata: Message, bundle_root: Path) -> None:
    assert metadata["Version"] == bundle_version()
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_payload() == (bundle_root / "README.md").read_text()


def test_dependencies_are_those_of_the_requirements_files(metadata: Message, bundle_root: Path) -> None:
    found: dict[str, set[str]] = {"core": set(), **{extra: set() for extra in metadata.get_all("Provides-Extra", [])}}
    for line in metadata.get_all("Requires-Dist", []):
        name, _, extra = line.partition("; extra == ")
        found[extra.strip("'") or "core"].add(name.lower())
    assert found.keys() == {"core", "dicom", "train"}
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
    assert {"info/licenses/LICENSE", "info/licenses/docs/data_license.txt"} <= contents.keys()
    assert "lung_infection_ct/py.typed" in contents


def test_packed_configs_name_the_package(contents: dict[str, bytes], bundle_root: Path) -> None:
    """A config of the wheel differs from that of the bundle in the package's name only."""
    for path in (bundle_root / "configs").rglob("*.*"):
        packed = contents[f"lung_infection_ct/{path.relative_to(bundle_root)}"].decode()
        assert packed.replace("lung_infection_ct.", "scripts.") == path.read_text()
        if path.suffix == ".yaml":
            assert not re.search(r"\bscripts\.[a-z]", str(yaml.safe_load(packed)))
