"""Run bundle workflows from Python, on the same configs that a user runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from ..files import write_json
from ..inference.metadata import read_metadata
from ..settings import describe_machine, usable_device
from ..training.curves import Curves
from ..training.run_folder import BEST, LAST
from ..version import BUNDLE

FINISHED = "finished.json"
"""What a training leaves that has ended."""


def run_workflow(files: Sequence[str], **settings: Any) -> None:
    """Run a workflow as `python -m monai.bundle run` does.

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
        for made in workflow.parser.ref_resolver.resolved_content.values():
            if isinstance(made, Curves):  # its writer keeps a thread until then
                made.close()


def train_once(files: Sequence[str], run: Path, **settings: Any) -> Path:
    """Train in a folder, resume a training that was stopped there, or find it done.

    Files and settings are those of `run_workflow`. The state for resuming is removed when the
    training has ended.

    Returns:
        The path of the weights.
    """
    finished = run / FINISHED
    if not finished.exists():
        run_workflow(files, output_dir=str(run), resume=True, **settings)
        machine = describe_machine(usable_device(settings.get("device")))
        write_json(finished, {"weights": BEST, "sha256": read_metadata(run / BEST)["sha256"], "machine": machine})
        (run / LAST).unlink(missing_ok=True)
    return run / BEST
