"""Two processes train like one with the same global batch."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

import pytest
import torch

from tests.bundle_runner import NARROW, run_bundle, run_process, unchanged_process
from tests.configs import record_training
from tests.process_group import leave, run_ranks

TRAIN = "configs/train.yaml"
WORLD = 2


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def torchrun(*arguments: str, nodes: int = 1) -> None:
    """Runs a program in two processes, below one torchrun or, as on two machines, below two."""
    port = free_port()
    meeting = ["--rdzv_id=1", "--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "--local_addr=127.0.0.1"]
    where = [f"--nnodes={nodes}", f"--nproc_per_node={2 // nodes}", *(meeting if nodes > 1 else ["--standalone"])]
    command = [sys.executable, "-m", "torch.distributed.run", *where, *arguments]
    with ThreadPoolExecutor(nodes) as pool:
        for done in pool.map(lambda _: run_process(command, ok=False), range(nodes)):
            # Once in about twenty runs gloo aborted a process while it was torn down, after its
            # work was done; what the run leaves is judged by the tests.
            torn_down = "terminate called without an active exception" in done.stderr
            assert done.returncode == 0 or torn_down, done.stdout[-2000:] + done.stderr[-4000:]


def worker(rank: int, folder: Path) -> None:
    """One process of the group, in the environment that torchrun makes for it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    found = record_training.record(str(folder / "dataset"), str(folder / "two"), "configs/multi_gpu_train.yaml")
    leave(rank, WORLD, folder, found)


def test_two_processes_equal_one(make_dataset: Callable[..., Path], bundle_root: Path, tmp_path: Path) -> None:
    dataset = make_dataset(cases=4, shape=(40, 36, 8))
    with unchanged_process(), chdir(bundle_root):
        one = record_training.record(str(dataset), str(tmp_path / "one"))
    (tmp_path / "port").write_text(str(free_port()))
    run_ranks(worker, WORLD, tmp_path)
    two = torch.load(tmp_path / "0.pt", weights_only=True)
    assert len(one["losses"]) == len(two["losses"]) == 4
    torch.testing.assert_close(torch.tensor(two["losses"]), torch.tensor(one["losses"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(two["gradients"][:2], one["gradients"][:2], rtol=0, atol=1e-5)
    assert one["gradients"].abs().max() > 1e-3  # there is something to compare


@pytest.mark.slow
def test_torchrun_trains_and_its_checkpoint_is_that_of_one_process(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    dataset, out = make_dataset(), tmp_path / "run"
    config = f"['{TRAIN}','configs/multi_gpu_train.yaml']"
    # `python -m monai.bundle` under torchrun: -m goes to torchrun, which starts the module.
    settings = {"dataset_dir": dataset, "output_dir": out, **NARROW}
    settings.pop("device")
    words = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    torchrun("-m", "monai.bundle", "run", "training", "--config_file", config, *words, nodes=2)
    assert {path.name for path in out.iterdir()} >= {"model.pt", "model.json", "last.pt", "history.csv", "curve.png"}
    weights = torch.load(out / "model.pt", weights_only=True)
    assert not any(key.startswith("module.") for key in weights)
    evaluate = f"['{TRAIN}','configs/evaluate.yaml']"
    run_bundle("evaluation", evaluate, dataset_dir=dataset, checkpoint=out / "model.pt", output_dir=tmp_path / "t")
