"""Assemble what a MONAI Label server runs: MONAI Label's bundle app around a copy of this bundle.

DEPLOYMENT/app/                 made anew at every assembly
    main.py, monaibundle.py     our app (`server.py`) on top of MONAI Label's own
    model/NAME/                 the bundle: scripts, and configs for the checkpoint's network
    model/NAME_full/            the shipped full model, where it is there; for inference only
DEPLOYMENT/checkpoints, runs, active     see `checkpoints.py`; never touched by an assembly
DEPLOYMENT/studies/             scans to annotate, their labels; phantoms to begin with
"""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from ..data.phantom.dataset import write_phantom_dataset
from ..errors import UserError
from ..files import replace_folder, unfinished_folder, write_json
from ..inference.building import require_slices
from ..inference.metadata import copy_checkpoint, read_metadata
from ..inference.shipped import FULL, is_there, shipped_weights
from ..networks.registry import checked_spec
from ..training.run_folder import BEST
from ..version import BUNDLE
from . import checkpoints

NAME = "lung_infection_ct_segmentation"
COPIED = ("configs/inference.yaml", "configs/multi_gpu_train.yaml", "configs/logging.conf", "LICENSE")
TRAINING = ("configs/train.yaml", "configs/monai_label.yaml")
STUDIES = "studies"
PHANTOMS = 3


def sample_app() -> Path:
    """Return the folder of MONAI Label's bundle app in this interpreter's environment.

    Raises:
        UserError: if MONAI Label is not installed.
    """
    for folder in (Path(sys.prefix) / "monailabel/sample-apps", Path(sys.prefix) / "local/monailabel/sample-apps"):
        if (folder / "monaibundle/main.py").is_file():
            return folder / "monaibundle"
    raise UserError(f"{sys.prefix}: MONAI Label is not installed there; expected: `make monailabel`, which installs it")


def assemble(deployment: str | Path, weights: str | Path, app: Path) -> str:
    """Make or renew a deployment.

    New weights become a checkpoint and the one in use; where the deployment holds them already, the
    one in use stays, unless `weights` names the file of a checkpoint in the deployment.

    Args:
        deployment: folder to make or renew.
        weights: trained weights with their metadata.
        app: MONAI Label's bundle app (`sample_app`).

    Returns:
        The name under which the model is served: one trained on synthetic scans says so.

    Raises:
        UserError: if the weights cannot be used, the folder holds something else, or the package is
            installed without the bundle's folder.
    """
    target = Path(deployment)
    if not (BUNDLE / "scripts").is_dir():
        expected = "`make monailabel` in the bundle's own folder, which the server's app is copied from"
        raise UserError(f"{BUNDLE}: the installed package; expected: {expected}")
    require_slices(read_metadata(weights), weights)
    if target.exists() and any(target.iterdir()) and not (target / checkpoints.CHECKPOINTS).is_dir():
        raise UserError(f"{target}: holds something else; expected: a new folder, or one that `make monailabel` made")
    (target / checkpoints.CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    known = checkpoints.names(target)
    checkpoint = checkpoints.add(target, Path(weights))
    named = (target / checkpoints.CHECKPOINTS).resolve() in Path(weights).resolve().parents
    begun = not (target / checkpoints.ACTIVE).is_symlink()  # by an assembly that was stopped
    if checkpoint not in known or named or begun:
        checkpoints.activate(target, checkpoint)
    metadata = read_metadata(checkpoints.weights(target, checkpoints.active(target)))
    name = f"{NAME}_demo" if metadata["data"].get("synthetic") else NAME
    with unfinished_folder(target) as folder:
        built, old = folder / "app", target / "app"
        shutil.copytree(app, built, ignore=shutil.ignore_patterns("__pycache__"))
        (built / "main.py").rename(built / "monaibundle.py")
        shutil.copy(Path(__file__).with_name("server.py"), built / "main.py")
        _build_bundle(built / "model" / name, metadata)
        if is_there(FULL):
            _build_full(built / "model" / f"{NAME}_{FULL}", shipped_weights(FULL))
        if (old / "logs").exists():
            shutil.move(old / "logs", built / "logs")
        replace_folder(built, old)
    if not (target / STUDIES).exists():
        _write_phantoms(target / STUDIES)
    return name


def start_command(deployment: str | Path, name: str) -> str:
    """Return the command line that starts the server on this machine only."""
    root = Path(deployment)
    words = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(root / "app")]
    words += ["--studies", str(root / STUDIES), "--conf", "models", name, "--host", "127.0.0.1", "--port", "8000"]
    return shlex.join(words)


def resolved_training(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the deployed train.yaml, with network and preprocessing of the metadata."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / name) for name in TRAINING])
    config: dict[str, Any] = parser.config
    network = checked_spec(metadata["network"])  # its arguments become part of a configuration, which is evaluated
    made_by = {"_target_": "scripts.networks.registry.create_network", "name": network["name"]}
    config["network_def"] = {**made_by, **network["arguments"]}
    preprocessing = metadata["preprocessing"]
    config["spatial_size"] = preprocessing["size"]
    config.update({key: preprocessing[key] for key in ("window", "intensity", "field_of_view", "z_score", "lung_only")})
    return config


def resolved_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the deployed metadata: inputs, outputs with their label values, weights."""
    resolved: dict[str, Any] = json.loads((BUNDLE / "configs/metadata.json").read_text(encoding="utf-8"))
    formats = resolved["network_data_format"]
    size = metadata["preprocessing"]["size"]
    formats["inputs"]["image"]["spatial_shape"] = [size, size, "*"]
    formats["outputs"] = formats.pop("post_processed_outputs")
    data = metadata["data"]
    origin = f"Weights trained on {data.get('name')}. "
    if data.get("synthetic"):
        origin = "DEMONSTRATION ONLY, trained on synthetic scans: its masks mean nothing for a patient. "
    network = metadata["network"]["name"]
    if network != "resunet":  # what metadata.json describes
        resolved["description"] = f"Segments COVID-19 infection on axial chest CT slices and volumes with {network}."
    resolved["description"] = origin + resolved["description"]
    return resolved


def _build_bundle(target: Path, metadata: Mapping[str, Any]) -> None:
    for name in COPIED:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(BUNDLE / name, target / name)
    shutil.copytree(BUNDLE / "scripts", target / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    note = f"# Assembled from {' and '.join(TRAINING)} for the network of the checkpoint; made anew every time.\n"
    text = note + yaml.safe_dump(resolved_training(metadata), sort_keys=False, width=120)
    (target / "configs/train.yaml").write_text(text, encoding="utf-8")
    write_json(target / "configs/metadata.json", resolved_metadata(metadata))
    (target / "models").symlink_to(Path("../../..") / checkpoints.ACTIVE)


def _build_full(target: Path, weights: Path) -> None:
    """Write a bundle without code, to infer with: the code is that of the model that is trained."""
    configs, models = target / "configs", target / "models"
    for folder in (configs, models):
        folder.mkdir(parents=True)
    shutil.copy(BUNDLE / "configs/inference.yaml", configs)
    write_json(configs / "metadata.json", resolved_metadata(read_metadata(weights)))
    copy_checkpoint(weights, models / BEST)  # the name that MONAI Label loads


def _write_phantoms(studies: Path) -> None:
    with unfinished_folder(studies.parent) as folder:
        write_phantom_dataset(str(folder / "all"), PHANTOMS, seed=7, size=128, slices=24)
        images = folder / STUDIES
        images.mkdir()
        for scan in folder.glob("all/COVID-19-CT-Seg_20cases/*.nii.gz"):
            scan.rename(images / scan.name)
        images.rename(studies)
