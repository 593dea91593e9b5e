"""Bundle workflows run from Python: what trains or evaluates many times builds on the same configs as a user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from scripts.version import BUNDLE


def run_workflow(files: Sequence[str], **settings: Any) -> None:
    """Runs a workflow as `python -m monai.bundle run` does.

    Args:
        files: config files, layered in order; relative ones lie in the bundle.
        **settings: ids and values that replace what the files say, nested ones with "#".

    Raises:
        UserError: as the workflow does.
    """
    paths = [str(BUNDLE / file) for file in files]
    workflow = ConfigWorkflow(
        paths,
        meta_file=str(BUNDLE / "configs/metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(BUNDLE),
        **settings,
    )
    workflow.initialize()
    try:
        workflow.run()
    finally:
        workflow.finalize()


def overlay(name: str) -> list[str]:
    """Names the overlay of a network as a list of files: none for the network that train.yaml holds.

    >>> overlay("resunet"), overlay("unet")
    ([], ['configs/networks/unet.yaml'])
    """
    return [] if name == "resunet" else [str(Path("configs/networks") / f"{name}.yaml")]
