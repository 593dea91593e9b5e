"""What MONAI Label's tasks get to run, and how many at a time; in MONAI Label's own environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-monailabel/bin/python"
Printed = Callable[..., list[str]]
TRAIN = """
from types import SimpleNamespace

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
GPUS = """
task = InfectionTrain.__new__(InfectionTrain)
shown = [sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"]
for own in ("", "4,GPU-1a"):
    os.environ["CUDA_VISIBLE_DEVICES"] = own
    task.run_multi_gpu({}, shown, {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1"})
"""
AT_A_TIME = """
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

sys.modules["monaibundle"] = SimpleNamespace(MyApp=type("MyApp", (), {}))  # of the assembled app
from scripts.monai_label.server import BundleInferTask, InfectionInfer, InfectionScoring

working, most = [], []

def work(task, number):
    working.append(number)
    time.sleep(0.05)
    most.append(len(working))
    working.remove(number)

BundleInferTask.__init__ = lambda task, *given, **settings: None
BundleInferTask.__call__ = work
for kind in (InfectionInfer, InfectionScoring):
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(kind("", {}), range(4)))
print(max(most))
"""

APP = """
from types import SimpleNamespace

sys.modules["monaibundle"] = SimpleNamespace(MyApp=type("MyApp", (), {}))  # of the assembled app
from scripts.monai_label.server import InfectionInfer, LungInfectionApp
"""
SETTINGS = """
task, weights = InfectionInfer(sys.argv[1], {}), Path(sys.argv[1]) / "models/model.pt"
found = []
for time, threshold in ((1, 0.4), (2, 0.5), (2, 0.6)):
    weights.with_name("model.json").write_text(json.dumps({"threshold": threshold}))
    os.utime(weights, (time, time))
    found.append([task.info()["config"]["threshold"], task._config["threshold"]])
print(json.dumps(found))
"""
BATCH = """
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

def segment(request, datastore):
    if request["image"] == "flat":
        raise HTTPException(400, "flat: one flat slice")
    return {"label": request["image"]}

app = LungInfectionApp.__new__(LungInfectionApp)
app._batch_infer, app._segment = BatchInferTask(), segment
request = {"model": "name", "images": ["a", "flat", "z"], "device": "cpu", "max_workers": 1}
print(json.dumps(app.batch_infer(request, SimpleNamespace())))
"""

pytestmark = [
    pytest.mark.monailabel,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="MONAI Label's environment is absent"),
]


@pytest.fixture
def printed(in_label_environment: Callable[..., subprocess.CompletedProcess[str]]) -> Printed:
    """What code prints in MONAI Label's environment."""

    def run(code: str, *words: Path) -> list[str]:
        done = in_label_environment(code, *words)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.splitlines()

    return run


def test_several_gpus_are_those_that_the_server_sees(printed: Printed) -> None:
    assert printed(GPUS) == ["0,1", "4,GPU-1a"]


def test_the_threads_of_a_batch_take_turns(printed: Printed) -> None:
    """They share one configuration, which is resolved anew for every scan."""
    assert printed(AT_A_TIME)[-1] == "1"


def test_only_a_pretrained_training_loads_the_weights_in_use(printed: Printed, tmp_path: Path) -> None:
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
    assert json.loads(printed(TRAIN, bundle, *files)[-1]) == [[False, 0], [True, 1], [True, 1], [False, 0]]


def test_the_settings_are_those_of_the_weights_in_use(printed: Printed, tmp_path: Path) -> None:
    """Of other weights too, which a training or `use` put there: they have another time."""
    metadata = {"network_data_format": {"inputs": {"image": {}}, "outputs": {"pred": {}}}}
    config = {
        "checkpoint_metadata": {"_target_": "scripts.files.read_json", "path": "$@bundle_root + '/models/model.json'"},
        "displayable_configs": {"threshold": "$@checkpoint_metadata['threshold']"},
        "network_def": {"_target_": "torch.nn.Identity"},
    }
    for name, content in (
        ("configs/inference.yaml", yaml.safe_dump(config)),
        ("configs/metadata.json", json.dumps(metadata)),
        ("models/model.json", json.dumps({"threshold": 0.3})),
        ("models/model.pt", ""),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert json.loads(printed(APP + SETTINGS, tmp_path)[-1]) == [[0.4, 0.4], [0.5, 0.5], [0.5, 0.5]]


def test_a_scan_that_cannot_be_used_ends_no_batch(printed: Printed) -> None:
    assert json.loads(printed(APP + BATCH)[-1]) == {
        "a": {"label": "a"},
        "flat": {"error": "flat: one flat slice"},
        "z": {"label": "z"},
    }
