"""Hundreds of changed inputs (slow: thousands), and that the fuzzing sees what goes wrong."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from scripts.errors import UserError
from tests import forked
from tests.fuzz import run
from tests.fuzz.targets import TARGETS, Target


def apart(work: Callable[[], object], folder: Path) -> tuple[int, str]:
    """Exit code and output of work in a process without threads, which its forks would lose."""
    said = folder / "said.txt"
    return forked.run(work, said), said.read_text()


@pytest.mark.parametrize("inputs", [500, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_input_ends_in_anything_but_a_result_or_a_refusal(inputs: int, tmp_path: Path) -> None:
    code, said = apart(partial(run.main, [str(inputs), "--kept", str(tmp_path)]), tmp_path)
    assert code == 0, said
    assert re.search(rf"^{inputs} inputs, seed 1: 0 findings", said, re.MULTILINE)
    for name in TARGETS:  # a class of which nothing or everything is read does not get far
        line = next(line for line in said.splitlines() if line.startswith(name.ljust(10)))
        assert name == "segment" or ("read" in line and "refused" in line), line


def _hang(place: Path) -> None:
    while True:
        pass


def _sleep(place: Path) -> None:
    time.sleep(60)


def _fill(place: Path) -> None:
    raise AssertionError(len(bytearray(2**33)))


def _die(place: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _fail(place: Path) -> None:
    raise ZeroDivisionError("a bug")


def _refuse_in_lines(place: Path) -> None:
    raise UserError("one", "two")


def _leave(place: Path) -> None:
    (place / "part.nii").write_bytes(b"half")


WRONG = {
    _hang: "too slow: SIGPROF",
    _sleep: "too slow: SIGALRM",
    _fill: "failed: MemoryError",
    _die: "died: SIGSEGV",
    _fail: r"failed: ZeroDivisionError: 'a bug' at .*test_fuzz\.py",
    _refuse_in_lines: "refused in several lines: one",
    _leave: "left files behind: beside the input",
}


def fuzz_what_ends_wrong(folder: Path) -> None:
    run.FEWER_SECONDS, run.WALL = 0.5, 3
    for read in WRONG:
        place = folder / read.__name__
        (place / "seeds").mkdir(parents=True)
        target = Target(1, lambda seeds: None, lambda seeds, place, rng: (place / "a").write_bytes(b"a"), read)
        run.show(read.__name__, run.fuzz(read.__name__, target, 2, 1, place, place / "kept"))


def test_every_wrong_ending_is_found(tmp_path: Path) -> None:
    code, said = apart(partial(fuzz_what_ends_wrong, tmp_path), tmp_path)
    assert code == 0, said
    for read, words in WRONG.items():
        name = read.__name__
        assert re.findall(rf"FINDING {name} (\d) \(seed 1\): {words}", said) == ["0", "1"], said
        assert (tmp_path / name / "kept" / f"{name}_1_1" / "a").read_bytes() == b"a"


def test_the_same_seed_gives_the_same_inputs(tmp_path: Path) -> None:
    for name in ("NIfTI", "NRRD", "picture", "zip"):
        target, made = TARGETS[name], []
        seeds = tmp_path / name
        seeds.mkdir()
        target.make(seeds)
        for repeat in range(2):
            place = tmp_path / f"{name}{repeat}"
            place.mkdir()
            for number in range(5):
                target.change(seeds, place, Random(f"{name} 1 {number}"))
            made.append({path.name: path.read_bytes() for path in place.iterdir()})
        assert made[0] == made[1]
        assert made[0] != {path.name: path.read_bytes() for path in seeds.iterdir() if path.is_file()}
