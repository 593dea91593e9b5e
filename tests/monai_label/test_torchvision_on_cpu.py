from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import torchvision_on_cpu
finder = torchvision_on_cpu.DeclareOperators()
sys.meta_path.insert(0, finder)
import json
assert finder in sys.meta_path, "another import used it up"
import torchvision
import torch
assert torchvision.__file__ is None or "stand_in" in torchvision.__file__
print(torch.ops.torchvision.nms.default._schema)
assert finder not in sys.meta_path
"""


def test_the_operators_are_there_when_torchvision_is_imported(bundle_root: Path, tmp_path: Path) -> None:
    (tmp_path / "stand_in" / "torchvision").mkdir(parents=True)
    (tmp_path / "stand_in" / "torchvision" / "__init__.py").write_text("import torch; torch.ops.torchvision.nms")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(folder=str(bundle_root / "scripts" / "monai_label"))],
        env={"PYTHONPATH": str(tmp_path / "stand_in")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
