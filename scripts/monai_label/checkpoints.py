"""Checkpoints of a MONAI Label deployment: a training adds one, none is changed, one is in use.

    DEPLOYMENT/checkpoints/NAME/   model.pt, its metadata model.json, history and curve of the run
    DEPLOYMENT/active              a link to the one in use; changing it is one rename
    DEPLOYMENT/runs/NAME/          a training that goes on, or that was stopped

The server looks at the weights' time before every answer, so a change needs no restart.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..files import unfinished_folder
from ..inference.metadata import copy_checkpoint, read_metadata
from ..networks.registry import same_network
from ..training.processes import is_main_process
from ..training.run_folder import BEST, LAST

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
RUNS = "runs"
ACTIVE = "active"


def time_stamp() -> str:
    """Return the local time as a name that sorts by it."""
    return time.strftime("%Y%m%d-%H%M%S")


def new_run(deployment: str) -> str:
    """Return the folder of a new training, of a name that no checkpoint has; the run makes it."""
    root = Path(deployment).resolve()
    while any(root.glob(f"{CHECKPOINTS}/{(name := time_stamp())}*")):  # of a training that took less than a second
        time.sleep(0.05)
    return str(root / RUNS / name)


def names(deployment: str | Path) -> list[str]:
    """Return the names of all checkpoints, the oldest first."""
    return sorted(path.parent.name for path in Path(deployment).glob(f"{CHECKPOINTS}/*/{BEST}"))


def active(deployment: str | Path) -> str:
    """Return the name of the checkpoint in use.

    Raises:
        UserError: if the folder holds no deployment.
    """
    link = Path(deployment) / ACTIVE
    if not link.is_symlink():
        raise UserError(f"{deployment}: no MONAI Label deployment; expected: a folder that `make monailabel` made")
    return link.readlink().name


def weights(deployment: str | Path, name: str) -> Path:
    """Return the weights of a checkpoint.

    Raises:
        UserError: if there is no such checkpoint.
    """
    known = names(deployment)
    if name not in known:
        raise UserError(f"{deployment}: no checkpoint {name!r}; expected: {', '.join(known)}")
    return Path(deployment) / CHECKPOINTS / name / BEST


def add(deployment: str | Path, source: Path) -> str:
    """Copy weights and metadata into the deployment, unless it holds them; return their name.

    Raises:
        UserError: if the weights cannot be used (`read_metadata`).
    """
    digest = read_metadata(source)["sha256"]
    for name in names(deployment):
        if read_metadata(weights(deployment, name))["sha256"] == digest:
            return name
    name = f"{time_stamp()}_start-{digest[:6]}"
    with unfinished_folder(deployment) as folder:
        checkpoint = folder / name
        checkpoint.mkdir()
        copy_checkpoint(source, checkpoint / BEST)
        _move(checkpoint, Path(deployment) / CHECKPOINTS / name)
    return name


def publish(deployment: str, output_dir: str) -> None:
    """End a training from the server: make its folder, from `new_run`, a checkpoint and use it."""
    if not is_main_process():
        return
    run = Path(output_dir)
    metadata = read_metadata(run / BEST)
    dice = metadata["figures"].get("validation", {}).get("val_mean_dice")
    name = run.name if dice is None else f"{run.name}_dice-{dice:.3f}"
    (run / LAST).unlink(missing_ok=True)  # three times the weights, and a run from the server is not resumed
    _move(run, Path(deployment) / CHECKPOINTS / name)
    before = active(deployment)
    activate(deployment, name)
    measured = "not validated"
    if dice is not None:
        measured = f"mean slice Dice {dice:.3f}, n = {metadata['figures']['slices']} slices"
    logger.info(f"checkpoint {name} ({measured}) is in use; before it: {before}")


def activate(deployment: str | Path, name: str) -> None:
    """Make a checkpoint the one in use, in one step.

    Raises:
        UserError: if there is no such checkpoint or its weights are damaged.
    """
    read_metadata(weights(deployment, name))
    with unfinished_folder(deployment) as folder:
        link = folder / ACTIVE
        link.symlink_to(Path(CHECKPOINTS) / name)
        link.replace(Path(deployment) / ACTIVE)


def use(deployment: str | Path, name: str) -> str:
    """Make another checkpoint of the network that is served the one in use; return its name.

    Raises:
        UserError: if there is no such checkpoint, or it holds another network than the server was
            assembled for.
    """
    served = read_metadata(weights(deployment, active(deployment)))["network"]
    found = read_metadata(weights(deployment, name))["network"]
    if not same_network(found, served):
        raise UserError(
            f"{name}: holds {found}; expected: the network that the app was assembled for, {served}; "
            f"`make monailabel WEIGHTS={weights(deployment, name)}` assembles it for the other"
        )
    activate(deployment, name)
    return name


def back(deployment: str | Path) -> str:
    """Go back to the checkpoint that the one in use was trained from; return its name.

    Raises:
        UserError: if the checkpoint in use was not trained from another one.
    """
    name = active(deployment)
    parent = (read_metadata(weights(deployment, name))["data"].get("started_from") or {}).get("checkpoint")
    if parent is None:
        raise UserError(f"{name}: was not trained from another checkpoint; expected: `use` with a name of the list")
    return use(deployment, parent)


def table(deployment: str | Path) -> pd.DataFrame:
    """Return a row per checkpoint, the oldest first: parent, data, figures."""
    in_use = active(deployment)
    rows = []
    for name in names(deployment):
        metadata = read_metadata(weights(deployment, name))
        data, figures = metadata["data"], metadata["figures"]
        rows.append(
            {
                "checkpoint": name,
                "in use": "yes" if name == in_use else "",
                "trained on": f"{data.get('name')}, {data.get('training_cases', '?')} cases",
                "from": (data.get("started_from") or {}).get("checkpoint") or "-",
                "slice Dice": figures.get("validation", {}).get("val_mean_dice", float("nan")),
                "n slices": figures.get("slices", 0),
                "sha256": metadata["sha256"][:12],
            }
        )
    return pd.DataFrame(rows)


def describe_annotations(
    deployment: str, training: Sequence[Mapping[str, str]], validation: Sequence[Mapping[str, str]], pretrained: bool
) -> dict[str, Any]:
    """Return what the metadata of a training from the server says about its data.

    Scans are {"image", "label"}; a `pretrained` network starts from the checkpoint in use.
    """
    parent = read_metadata(weights(deployment, active(deployment)))
    return {
        "name": "annotations",
        "layout": "MONAI Label",
        "split": "scan",
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "synthetic": bool(pretrained and parent["data"].get("synthetic")),
        "training_cases": len(training),
        "validation_cases": len(validation),
        "training_scans": [Path(case["image"]).name for case in training],
        "validation_scans": [Path(case["image"]).name for case in validation],
        "started_from": {"checkpoint": active(deployment), "sha256": parent["sha256"]} if pretrained else None,
    }


def _move(folder: Path, target: Path) -> None:
    if target.exists():
        raise UserError(f"{target}: exists; expected: a checkpoint is never replaced")
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
