"""Event files of a resumed run: what is repeated goes, all else stays as it was."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from scripts.training.event_files import forget_after


def steps(path: Path) -> list[int]:
    return [event.step for event in EventAccumulator(str(path)).Reload().Scalars("loss")]


def test_events_of_repeated_epochs_go(tmp_path: Path) -> None:
    now = time.time()
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(6):
            writer.add_scalar("loss", step / 2, step, walltime=now + 10 * step)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    forget_after(tmp_path, now + 100)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-5])  # the process was killed while it wrote the last event
    forget_after(tmp_path, now + 25)
    assert steps(path) == [0, 1, 2]
    assert whole.startswith(path.read_bytes())


def test_a_file_that_is_open_goes_on(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.flush()
        forget_after(tmp_path, time.time() - 60)
        writer.add_scalar("loss", 1.0, 7)
    (path,) = tmp_path.iterdir()
    assert steps(path) == [7]
    forget_after(tmp_path / "absent", 0)
