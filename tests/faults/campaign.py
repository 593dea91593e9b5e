"""Interrupt commands at every place where they write, and see that nothing is lost.

`python -m tests.faults.campaign --kills 100 --disks 20 --seed 0` runs `segment`, `run training` and
`publish` on small synthetic data. Each trial starts a command in an empty folder and ends it by a
fault:

* killed at the n-th write below its folder, or at a random moment,
* the n-th write finds the disk full, or no file may grow beyond a size (which also reaches the
  writers in C++).

Then nothing partial may be in sight, a full disk must end in one line and exit code 2 or 3, and the
same command must give what an undisturbed one gives.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scripts.data.phantom.dataset import write_phantom_dataset
from scripts.errors import UserError
from scripts.files import CACHE, UNFINISHED
from scripts.inference.metadata import read_metadata
from tests import forked
from tests.bundle_runner import NARROW, run_bundle, run_command
from tests.conftest import write_dataset, write_random_checkpoint
from tests.equal_results import written

WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}
FILLS = {"open", "os.mkdir"}
"""Of the writes, those that a full disk refuses."""


@dataclass
class Fault:
    """What happens to a command; 0 and None: nothing.

    Attributes:
        kill_at: number of the write at which it is killed.
        full_at: number of the write from which on the disk is full.
        largest_file: bytes beyond which no file grows.
        kill_after: seconds after which it is killed.
    """

    kill_at: int = 0
    full_at: int = 0
    largest_file: int = 0
    kill_after: float | None = None


@dataclass
class Job:
    """A command to disturb.

    Attributes:
        name: for the table.
        run: does what the command line does, in this process; takes the folder for the results and
            returns exit code and standard error.
        state: what is compared of that folder.
        partial: says what is partial in it; [] if nothing.
    """

    name: str
    run: Callable[[Path], tuple[int, str]]
    state: Callable[[Path], Any]
    partial: Callable[[Path, Any], list[str]]
    expected: Any = None
    seconds: float = 0.0
    writes: int = 0
    largest: int = 0


@dataclass
class Trial:
    """How a disturbed command ended, and what was wrong."""

    job: str
    fault: Fault
    findings: list[str] = field(default_factory=list)


class _Hook:
    """Count the writes of this process below a folder; end it, or fill its disk, at one of them."""

    def __init__(self, place: Path, fault: Fault) -> None:
        self._place, self._fault, self.count = str(place), fault, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not (event in WRITES or (event == "open" and _is_write(arguments))):
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike) or not os.path.abspath(path).startswith(self._place):
            return
        self.count += 1
        if self.count == self._fault.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault.full_at and self.count >= self._fault.full_at and event in FILLS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


def _is_write(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if mode is not None:
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _in_child(run: Callable[[Path], tuple[int, str]], place: Path, fault: Fault, said: Path) -> None:
    """Run a job in this process, which has imported everything but done nothing yet."""
    torch.set_num_threads(1)
    place.parent.mkdir(parents=True, exist_ok=True)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    if fault.largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest_file, resource.RLIM_INFINITY))
    hook = _Hook(place.parent, fault)
    sys.addaudithook(hook)
    try:
        code, text = run(place)
    except BaseException:
        code, text = 1, traceback.format_exc()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    said.write_text(json.dumps([code, text, hook.count]))
    os._exit(0)


class Campaign:
    """Run jobs with faults in processes of their own.

    Args:
        folder: for everything that is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._context = forked.context()
        self._count = 0

    def measure(self, job: Job) -> None:
        """Run a job undisturbed: what it gives, how long it takes, how often it writes."""
        place = self._new_place(job)
        self._run(job, place, Fault())  # what is imported late is now in the cache of the file system
        shutil.rmtree(place.parent)
        start = time.monotonic()
        code, text, job.writes = self._run(job, place, Fault()) or (1, "killed", 0)
        job.seconds = time.monotonic() - start
        if code:
            raise RuntimeError(f"{job.name} undisturbed: {text[-2000:]}")
        job.expected = job.state(place)
        job.largest = max(path.stat().st_size for path in place.parent.rglob("*") if path.is_file())

    def disturb(self, job: Job, fault: Fault) -> Trial:
        """Run a job with a fault, then again without; return what was wrong."""
        trial, place = Trial(job.name, fault), self._new_place(job)
        ended = self._run(job, place, fault)
        findings = trial.findings
        findings += [f"partial: {one}" for one in job.partial(place, job.expected)]
        if ended is not None and not (fault.kill_at or fault.kill_after is not None):
            code, text, _ = ended
            if code not in (0, 2, 3) or "Traceback" in text:
                findings.append(f"exit code {code}: {text[-1500:]}")
            if code == 0 and job.state(place) != job.expected:
                findings.append("exit code 0 with other results")
        again = self._run(job, place, Fault())
        if again is None or again[0]:
            findings.append(f"the same command does not finish: {again and again[1][-1500:]}")
        elif job.state(place) != job.expected:
            findings.append(f"other results after the rerun: {_difference(job.state(place), job.expected)}")
        if left := [path.name for path in place.parent.rglob(f"{UNFINISHED}*/*")]:
            findings.append(f"left behind after the rerun: {left}")
        shutil.rmtree(place.parent)
        return trial

    def _new_place(self, job: Job) -> Path:
        self._count += 1
        return self.folder / f"{job.name}_{self._count}" / "out"

    def _run(self, job: Job, place: Path, fault: Fault) -> tuple[int, str, int] | None:
        """Return exit code, standard error and number of writes; None if it was killed."""
        said = self.folder / "said.json"
        said.unlink(missing_ok=True)
        process = self._context.Process(target=_in_child, args=(job.run, place, fault, said))
        process.start()
        process.join(fault.kill_after)
        if process.is_alive() and fault.kill_after is not None:
            process.kill()
        process.join()
        return tuple(json.loads(said.read_text())) if said.exists() else None  # type: ignore[return-value]


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        return str([key for key in one.keys() | other.keys() if one.get(key) != other.get(key)])
    return f"{one!r:.200} in place of {other!r:.200}"


def segment_job(folder: Path) -> Job:
    """`segment` of two phantoms."""
    write_phantom_dataset(folder / "scans", cases=2, size=64, slices=12)
    scans = folder / "scans" / "COVID-19-CT-Seg_20cases"
    weights = write_random_checkpoint(folder / "weights" / "model.pt")
    return Job("segment", partial(_segment, scans, weights), _segmented, _partial_cases)


def _segmented(out: Path) -> dict[str, Any]:
    """What is there, whether this command found it done or made it."""
    content = written(out)
    for case in content["manifest.json"]["cases"]:
        case["status"] = case["status"].removeprefix("found ")
    return content


def _segment(scans: Path, weights: Path, out: Path) -> tuple[int, str]:
    by_name = ("--device", "cpu", "--backend", "torch", "--precision", "fp32")
    done = run_command("segment", scans, out, "--weights", weights, *by_name, ok=False)
    return done.returncode, done.stderr


def _partial_cases(out: Path, expected: dict[str, Any]) -> list[str]:
    """Every case in sight has all of its files as they shall be."""
    found = {path: content for path, content in _visible(out).items() if "/" in path}
    cases = {path.split("/")[0] for path in found}
    wanted = {path: content for path, content in expected.items() if path.split("/")[0] in cases and "/" in path}
    problems = [path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path)]
    return problems + [path.name for path in out.glob("*.json") if not _is_json(path)]


def _visible(out: Path) -> dict[str, Any]:
    return {path: content for path, content in written(out).items() if not path.startswith(UNFINISHED)}


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def training_job(folder: Path) -> Job:
    """`run training` of a narrow network for three epochs."""
    data = write_dataset(folder / "data", cases=2, shape=(40, 36, 6), folds=2)
    return Job("training", partial(_train, data), _training_state, _partial_training)


def _train(data: Path, out: Path) -> tuple[int, str]:
    settings = {**NARROW, "dataset_dir": data, "max_epochs": 3, "output_dir": out, "val_interval": 1, "amp": "false"}
    done = run_bundle("training", "configs/train.yaml", ok=False, resume="true", **settings)
    return (2 if done.returncode else 0), done.stderr


def _training_state(out: Path) -> dict[str, Any]:
    rows = (out / "history.csv").read_text().splitlines()
    seconds = rows[0].split(",").index("seconds")
    kept = [[value for place, value in enumerate(row.split(",")) if place != seconds] for row in rows]
    files = sorted(path.name for path in out.iterdir() if path.is_file())
    return {"files": files, "history": kept, "weights": hashlib.sha256((out / "model.pt").read_bytes()).hexdigest()}


def _partial_training(out: Path, _: Any) -> list[str]:
    problems = []
    if (out / "last.pt").exists():
        torch.load(out / "last.pt", map_location="cpu", weights_only=True)
    if (out / "model.pt").exists() and (out / "model.json").exists():
        content = json.loads((out / "model.json").read_text())
        if not isinstance(content["sha256"], str):
            problems.append("model.json")
    if (out / "history.csv").exists():
        rows = (out / "history.csv").read_text().splitlines()
        problems += ["history.csv"] if len({row.count(",") for row in rows}) != 1 else []
    return problems


def publish_job(folder: Path) -> Job:
    """`publish` of weights that one case did not see."""
    data = write_dataset(folder / "publish_data", cases=2, shape=(40, 36, 4), folds=2)
    done = run_bundle("training", "configs/train.yaml", **NARROW, dataset_dir=data, output_dir=folder / "trained")
    assert done.returncode == 0
    return Job("publish", partial(_publish, folder / "trained" / "model.pt", data), _published, _partial_published)


def _publish(weights: Path, data: Path, out: Path) -> tuple[int, str]:
    if (out / "model.pt").exists():
        return 0, ""  # it is done; the command refuses to write it again
    done = run_command("publish", weights, out / "model.pt", data, "--device", "cpu", ok=False)
    return done.returncode, done.stderr


def _published(out: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir()) if path.is_file()
    }


def _partial_published(out: Path, _: Any) -> list[str]:
    if not (out / "model.pt").exists():
        return []
    try:
        read_metadata(out / "model.pt")
    except UserError as error:
        return [str(error)]
    return []


JOBS = {"segment": segment_job, "training": training_job, "publish": publish_job}


def draw_faults(job: Job, kills: int, disks: int, chance: random.Random) -> list[Fault]:
    """Draw faults: half of the kills at writes, evenly spread; half of the full disks as well."""
    at_writes = _spread(job.writes, kills - kills // 2)
    faults = [Fault(kill_at=number) for number in at_writes]
    faults += [Fault(kill_after=chance.uniform(0, job.seconds)) for _ in range(kills // 2)]
    faults += [Fault(full_at=number) for number in _spread(job.writes, disks - disks // 2)]
    return faults + [Fault(largest_file=chance.randint(1, job.largest)) for _ in range(disks // 2)]


def _spread(count: int, wanted: int) -> list[int]:
    return sorted({1 + round(step * (count - 1) / max(wanted - 1, 1)) for step in range(min(wanted, count))})


def run(
    folder: Path, names: Sequence[str], kills: int, disks: int, seed: int, say: Callable[[str], None] = print
) -> list[Trial]:
    """Run a campaign and return its trials."""
    chance, campaign, trials = random.Random(seed), Campaign(folder), []
    for name in names:
        job = JOBS[name](folder / "inputs" / name)
        campaign.measure(job)
        say(f"{name}: {job.writes} writes, {job.seconds:.1f} s undisturbed")
        for fault in draw_faults(job, kills, disks, chance):
            trials.append(campaign.disturb(job, fault))
            for finding in trials[-1].findings:
                say(f"FINDING {name} {fault}: {finding}")
    return trials


def main() -> None:
    """Run the campaign of the command line; exit code 1 if it found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all, divided among the commands")
    parser.add_argument("--disks", type=int, default=20, help="full disks in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=JOBS, help="one command")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    names = [options.only] if options.only else list(JOBS)
    kills, disks = (-(-number // len(names)) for number in (options.kills, options.disks))
    with tempfile.TemporaryDirectory() as name:
        os.environ[CACHE] = f"{name}/cache"
        trials = run(Path(name), names, kills, disks, options.seed)
    found = [trial for trial in trials if trial.findings]
    kinds = Counter("killed" if one.fault.kill_at or one.fault.kill_after is not None else "full" for one in trials)
    print(f"{kinds['killed']} kills, {kinds['full']} full disks: {len(found)} with findings")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
