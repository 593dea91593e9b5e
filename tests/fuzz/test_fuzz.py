"""Hundreds of changed inputs (slow: thousands), and that the fuzzing sees what goes wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from scripts.errors import UserError
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("inputs", [500, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_input_ends_in_anything_but_a_result_or_a_refusal(inputs: int, bundle_root: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.fuzz.run", str(inputs), "--kept", str(tmp_path)]
    done = subprocess.run(words, cwd=bundle_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert re.search(rf"^{inputs} inputs, seed 1: 0 findings", done.stdout, re.MULTILINE)
    for name in TARGETS:  # a class of which nothing or everything is read does not get far
        line = next(line for line in done.stdout.splitlines() if line.startswith(name.ljust(10)))
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
SCRIPT = """
import sys
from pathlib import Path
from tests.fuzz import run, test_fuzz
from tests.fuzz.targets import Target
run.FEWER_SECONDS, run.WALL = 1, 3
for read in test_fuzz.WRONG:
    folder = Path(sys.argv[1]) / read.__name__
    (folder / "seeds").mkdir(parents=True)
    target = Target(1, lambda seeds: None, lambda seeds, place, rng: (place / "a").write_bytes(b"a"), read)
    run.show(read.__name__, run.fuzz(read.__name__, target, 2, 1, folder, folder / "kept"))
"""


def test_every_wrong_ending_is_found(bundle_root: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], cwd=bundle_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for read, words in WRONG.items():
        name = read.__name__
        assert re.findall(rf"FINDING {name} (\d) \(seed 1\): {words}", done.stdout) == ["0", "1"], done.stdout
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
