"""Tasks in processes of their own: what they print, how they fail, how they end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from scripts.errors import UserError
from scripts.research.parallel_runs import in_parallel


def speak(word: str) -> None:
    """Prints in every way that a training does."""
    from monai.apps.utils import get_logger  # here: the other tasks start seconds sooner

    print(f"printed {word}")
    get_logger("handler of the first task").info(f"logged {word}")  # keeps the stream that it first saw
    logging.getLogger("scripts.somewhere").info(f"said {word}")
    subprocess.run([sys.executable, "-c", f"print('native {word}')"], check=True)


def fail(error: type[Exception]) -> None:
    try:
        raise error("the cause")
    except error as cause:
        raise RuntimeError("wrapped") from cause


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_task_has_its_own_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("one", "two", "three")
    assert len(list(in_parallel({tmp_path / word / "log.txt": partial(speak, word) for word in words}, 1))) == 3
    for word in words:
        lines = (tmp_path / word / "log.txt").read_text().splitlines()
        assert sorted(line.split(" - ")[-1] for line in lines) == [
            f"{how} {word}" for how in ("logged", "native", "printed", "said")
        ]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "trainings: 100%" in captured.err


def test_a_failure_arrives_with_its_cause(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with pytest.raises(RuntimeError, match="wrapped") as caught:
        list(in_parallel({log: partial(fail, FileNotFoundError)}, 1))
    assert "FileNotFoundError: the cause" in str(caught.value.__cause__)
    assert "FileNotFoundError: the cause" in log.read_text()


def test_a_users_mistake_arrives_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^the cause$"):
        list(in_parallel({tmp_path / "log.txt": partial(fail, UserError)}, 1))


def test_a_process_that_the_system_ends_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ended by the system.*log\.txt\)"):
        list(in_parallel({tmp_path / "log.txt": die}, 2))
