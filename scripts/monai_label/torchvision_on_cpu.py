"""Lets torchvision of the Python package index be imported beside a CPU build of torch.

MONAI Label imports torchvision, and the index offers torchvision only as a build for CUDA. Its
compiled part cannot be loaded beside a CPU torch, so two operators are missing and the import fails
with "operator torchvision::nms does not exist". MONAI Label calls neither. `make monailabel` runs
this file with MONAI Label's interpreter: where the import fails, the file goes into that
environment and declares the two operators just before torchvision is imported. Where torch and
torchvision fit together, as on a machine with CUDA, nothing is changed.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path

OPERATORS = ("torchvision::nms", "torchvision::qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
MODULE = "torchvision_on_cpu"


class DeclareOperators(MetaPathFinder):
    """Declares the operators when torchvision is looked for, and leaves the search to others."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        """Find nothing."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in OPERATORS:
                torch.library.define(operator, SCHEMA)


def install() -> None:
    """Put this file into the running environment if torchvision cannot be imported without it."""
    tried = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    if tried.returncode == 0:
        return
    if "torchvision::nms" not in tried.stderr:
        sys.exit(tried.stderr)
    packages = Path(sysconfig.get_path("purelib"))
    shutil.copy(__file__, packages / f"{MODULE}.py")
    start = f"import sys, {MODULE}; sys.meta_path.insert(0, {MODULE}.DeclareOperators())\n"
    (packages / f"{MODULE}.pth").write_text(start)
    subprocess.run([sys.executable, "-c", "import torchvision"], check=True)


if __name__ == "__main__":
    install()
