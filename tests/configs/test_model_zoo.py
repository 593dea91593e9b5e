"""What the model zoo's verification does with a bundle, on the files that git tracks,
zipped and unpacked elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.bundle_runner import bundle_command, environment, run_process

NAME = "lung_infection_ct_segmentation"
NECESSARY = ("configs/metadata.json", "LICENSE")
PREFERRED = ("models/model.pt", "configs/inference.json", "docs/README.md", "docs/data_license.txt")
VERIFY = """
import json, os, sys
bundle = sys.argv[1]
sys.path = [bundle, *sys.path]
from monai.bundle import ckpt_export, create_workflow, verify_metadata, verify_net_in_out
inside = lambda name: os.path.join(bundle, name)
meta = inside("configs/metadata.json")
verify_metadata(meta_file=meta, filepath=inside("eval/schema.json"))
missing = {}
files = {"inference.yaml": "inference", "inference.json": "inference", "train.yaml": "train"}
for file, kind in files.items():
    flow = create_workflow(
        config_file=inside(f"configs/{file}"),
        meta_file=meta,
        logging_file=inside("configs/logging.conf"),
        workflow_type=kind,
        bundle_root=bundle,
        dataset_dir=sys.argv[2],
        device="cpu",
        **({"network_def#base_width": 4} if file == "train.yaml" else {}),
    )
    missing[file] = flow.check_properties()
both = {"net_id": "network_def", "meta_file": meta, "bundle_root": bundle}
for file in ("configs/inference.yaml", "configs/inference.json"):
    verify_net_in_out(config_file=inside(file), device="cpu", **both)
ckpt_export(
    filepath=inside("models/verify_model.ts"),
    ckpt_file=inside("models/model.pt"),
    config_file=inside("configs/inference.yaml"),
    **both,
)
import scripts
json.dump({"missing": missing, "scripts": scripts.__file__}, open("verified.json", "w"))
"""


@pytest.fixture(scope="module")
def zoo(bundle_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models/NAME, unpacked from a zip file of what git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=bundle_root, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("git knows nothing of this folder: what belongs to the bundle is what it tracks")
    folder = tmp_path_factory.mktemp("zoo")
    archive = folder / f"{NAME}.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in filter(None, listed.stdout.split("\0")):
            if not name.startswith("tests/"):
                packed.write(bundle_root / name, f"{NAME}/{name}")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder / "models")
    return folder


@pytest.fixture(scope="module")
def bundle(zoo: Path) -> Path:
    return zoo / "models" / NAME


@pytest.fixture
def metadata(bundle: Path) -> dict[str, object]:
    return json.loads((bundle / "configs/metadata.json").read_text(encoding="utf-8"))


def test_the_folder_holds_what_a_bundle_needs(bundle: Path) -> None:
    assert [name for name in NECESSARY + PREFERRED if not (bundle / name).is_file()] == []
    assert not list(bundle.glob("large_files.*"))  # nothing is left to be downloaded
    assert not [path for path in bundle.rglob("*") if path.is_symlink()]


def test_the_metadata_name_version_and_applications(
    metadata: dict[str, object], bundle: Path, bundle_root: Path
) -> None:
    assert metadata["name"]
    assert metadata["version"] == next(iter(metadata["changelog"]))  # the newest entry is that of this version
    assert f"version: {metadata['version']}\n" in (bundle / "CITATION.cff").read_text(encoding="utf-8")
    pins = (bundle / "constraints-monailabel.txt").read_text(encoding="utf-8")
    assert metadata["supported_apps"] == {"monai-label": "0.8.5"}
    assert "monailabel==0.8.5\n" in pins


def test_the_zoos_verification_passes_from_another_folder(
    zoo: Path, bundle: Path, bundle_root: Path, make_dataset: Callable[..., Path]
) -> None:
    (bundle / "eval").mkdir()
    schema = (bundle_root / "tests/configs/meta_schema_20240725.json").read_bytes()
    (bundle / "eval/schema.json").write_bytes(schema)  # the zoo downloads it
    plain = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    relative = os.path.join("models", NAME)  # as the zoo names it
    done = subprocess.run(
        [sys.executable, "-c", VERIFY, relative, str(make_dataset())],
        cwd=zoo,
        env=plain,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "metadata is verified with no error" in done.stdout + done.stderr
    verified = json.loads((zoo / "verified.json").read_text())
    assert Path(zoo, verified["scripts"]).resolve() == (bundle / "scripts/__init__.py").resolve()
    assert verified["missing"] == {"inference.yaml": [], "inference.json": [], "train.yaml": []}
    script = torch.jit.load(str(bundle / "models/verify_model.ts"))
    assert script(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)
    left = {path.name for path in zoo.iterdir()}
    assert left == {f"{NAME}.zip", "models", "verified.json"}


@pytest.mark.slow
def test_the_unpacked_bundle_segments_from_another_folder(
    zoo: Path, bundle: Path, make_scan: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    scan, _ = make_scan()
    settings = {"dataset_dir": scan, "output_dir": tmp_path / "masks", "device": "cpu"}
    command = bundle_command("inference", str(bundle / "configs/inference.yaml"), **settings)
    run_process(command, cwd=tmp_path)
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["scan_infection.nii.gz"]
