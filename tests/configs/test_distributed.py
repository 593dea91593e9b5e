"""Two processes train like one with the same global batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

TRAIN = "configs/train.yaml"


def torchrun(bundle_root: Path, tools, program: str, *arguments: str, processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*command, program, *arguments],
        cwd=bundle_root,
        env=tools.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    # Once in about twenty runs gloo aborted a process while it was torn down, after its work was
    # done; what the run leaves is judged by the tests.
    torn_down = "terminate called without an active exception" in done.stderr
    assert done.returncode == 0 or torn_down, done.stdout[-2000:] + done.stderr[-4000:]


PROGRAM = '''
"""Runs the training workflow for a few steps with BatchNorm in eval mode; records losses and gradients."""
import sys
import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents
sys.path.insert(0, ".")
dataset, folder, *overlays = sys.argv[1:]
flow = ConfigWorkflow(
    config_file=["configs/train.yaml", *overlays], workflow_type="train", meta_file="configs/metadata.json",
    logging_file="configs/logging.conf", dataset_dir=dataset, output_dir=folder, device="cpu", spatial_size=32,
    batch_size=4, max_epochs=1, val_interval=5, **{"network_def#base_width": 4},
)
flow.initialize()
network, trainer = flow.parser.get_parsed_content("network"), flow.parser.get_parsed_content("train#trainer")
losses, gradients = [], []

def freeze(module):
    for layer in module.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.eval()

def record(engine):
    losses.append(engine.state.output["loss"].item())
    gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]).clone())

network.register_forward_pre_hook(lambda module, args: freeze(module))
trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, record)
flow.run()
if not dist.is_initialized() or dist.get_rank() == 0:
    torch.save({"losses": losses, "gradients": torch.stack(gradients)}, folder + "/record.pt")
flow.finalize()
'''


def test_two_processes_equal_one(
    make_dataset: Callable[..., Path], bundle_root: Path, bundle_tools, tmp_path: Path
) -> None:
    dataset = make_dataset(cases=4, shape=(40, 36, 8))
    program = tmp_path / "record.py"
    program.write_text(PROGRAM)
    records = {}
    for processes, overlays in ((1, []), (2, ["configs/multi_gpu_train.yaml"])):
        folder = tmp_path / f"run{processes}"
        if processes == 1:
            command = [sys.executable, str(program), str(dataset), str(folder)]
            done = subprocess.run(
                command, cwd=bundle_root, env=bundle_tools.environment(), capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stderr[-4000:]
        else:
            torchrun(bundle_root, bundle_tools, str(program), str(dataset), str(folder), *overlays, processes=2)
        records[processes] = torch.load(folder / "record.pt", weights_only=True)
    one, two = records[1], records[2]
    assert len(one["losses"]) == len(two["losses"]) == 4
    torch.testing.assert_close(torch.tensor(two["losses"]), torch.tensor(one["losses"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(two["gradients"][:2], one["gradients"][:2], rtol=0, atol=1e-5)
    assert one["gradients"].abs().max() > 1e-3  # there is something to compare


def test_torchrun_trains_and_its_checkpoint_is_that_of_one_process(
    make_dataset: Callable[..., Path], bundle_root: Path, bundle_tools, run_bundle, tmp_path: Path
) -> None:
    dataset, out = make_dataset(), tmp_path / "run"
    config = f"['{TRAIN}','configs/multi_gpu_train.yaml']"
    # `python -m monai.bundle` under torchrun: -m goes to torchrun, which starts the module.
    settings = {"dataset_dir": dataset, "output_dir": out, **bundle_tools.narrow}
    settings.pop("device")
    words = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    torchrun(
        bundle_root, bundle_tools, "-m", "monai.bundle", "run", "training", "--config_file", config, *words, processes=2
    )
    assert {path.name for path in out.iterdir()} >= {"model.pt", "model.json", "last.pt", "history.csv", "curve.png"}
    weights = torch.load(out / "model.pt", weights_only=True)
    assert not any(key.startswith("module.") for key in weights)
    evaluate = f"['{TRAIN}','configs/evaluate.yaml']"
    run_bundle("evaluation", evaluate, dataset_dir=dataset, checkpoint=out / "model.pt", output_dir=tmp_path / "t")
