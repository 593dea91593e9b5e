"""What MONAI Label's training task gets to run; in MONAI Label's own environment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-monailabel/bin/python"
TRAIN = """
import json, sys
from types import SimpleNamespace
from scripts.monai_label.serving.training import InfectionTrain

class Shown(InfectionTrain):
    def run_single_gpu(self, request, overrides):
        self.overrides = overrides
    def stats(self):
        return {}

task, case, found = Shown(sys.argv[1], {}), dict(image=sys.argv[2], label=sys.argv[3]), []
asked = {"model": "name", "val_split": 0, "device": "cpu"}
for pretrained in (False, True, True, False):
    task(dict(asked, pretrained=pretrained), SimpleNamespace(datalist=lambda: [case]))
    handlers = [one["_target_"] for one in task.overrides["train#handlers"]]
    found.append([task.overrides["pretrained"], handlers.count("CheckpointLoader")])
print(json.dumps(found))
"""


@pytest.mark.monailabel
@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="MONAI Label's environment is absent")
def test_only_a_pretrained_training_loads_the_weights_in_use(tmp_path: Path) -> None:
    bundle = tmp_path / "app/model/name"
    config = {"network_def": {}, "device": "cpu", "train": {"handlers": [{"_target_": "StatsHandler"}]}}
    for name, content in (
        ("configs/train.yaml", yaml.safe_dump(config)),
        ("configs/metadata.json", "{}"),
        ("models/model.pt", ""),
    ):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text(content)
    files = [tmp_path / name for name in ("scan.nii.gz", "label.nii.gz")]
    for file in files:
        nib.save(nib.Nifti1Image(np.ones((16, 16, 4), np.uint8), np.eye(4)), file)
    command, env = [PYTHON, "-c", TRAIN, bundle, *files], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[False, 0], [True, 1], [True, 1], [False, 0]]
