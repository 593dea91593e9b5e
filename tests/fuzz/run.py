"""`python -m tests.fuzz.run N [--seed S]`: changed inputs for every reader, within limits.

An input ends in a result or in a `UserError` of one line. Anything else is a finding: another
exception, a process that dies, takes too long or too much memory, a file that stays behind. What
led to it is kept in out/fuzz/.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import torch

from scripts.errors import UserError
from tests.fuzz.targets import TARGETS, Target, shares

BATCH = 100  # inputs of one process
MEMORY = 3 * 2**30  # bytes of address space beyond what a process starts with
SECONDS = {"segment": 120}  # of processor time for an input
FEWER_SECONDS, WALL = 10, 600
SHOWN = 10  # findings of a class
KEPT = Path("out/fuzz")


@dataclass
class Report:
    """How the inputs of one class ended."""

    endings: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)  # seconds of processor time, number of the input
    peak: int = 0  # KiB


def main(words: Sequence[str] | None = None) -> int:
    """Fuzz; print counts by class; return 1 where there were findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("number", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[*TARGETS], action="append")
    parser.add_argument("--kept", type=Path, default=KEPT, help="Where inputs go that ended wrong.")
    chosen = parser.parse_args(words)
    reports = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, number in shares(chosen.number, chosen.only or [*TARGETS]):
            seeds = Path(folder) / name / "seeds"
            seeds.mkdir(parents=True)
            _apart(lambda seeds=seeds, name=name: TARGETS[name].make(seeds))
            reports[name] = fuzz(name, TARGETS[name], number, chosen.seed, Path(folder) / name, chosen.kept)
            show(name, reports[name])
    findings = sum(len(report.findings) for report in reports.values())
    inputs = sum(sum(report.endings.values()) for report in reports.values())
    peak = max(report.peak for report in reports.values()) / 2**10
    print(f"{inputs} inputs, seed {chosen.seed}: {findings} findings, peak memory {peak:.0f} MiB")
    return 1 if findings else 0


def show(name: str, report: Report) -> None:
    """Print one line for a class, and its findings."""
    ended = ", ".join(f"{count} {ending}" for ending, count in sorted(report.endings.items()))
    seconds, number = report.slowest
    print(f"{name:10} {ended}; slowest {seconds:.2f} s (input {number}), {report.peak / 2**10:.0f} MiB", flush=True)
    for finding in report.findings[:SHOWN]:
        print(f"  FINDING {finding}", flush=True)
    if len(report.findings) > SHOWN:
        print(f"  and {len(report.findings) - SHOWN} more", flush=True)


def fuzz(name: str, target: Target, number: int, seed: int, folder: Path, kept: Path = KEPT) -> Report:
    """Read so many changed inputs in processes of their own; keep those that end wrong."""
    report, first = Report(), 0
    while first < number:
        for line in _batch(name, target, range(first, min(first + BATCH, number)), seed, folder, kept):
            first = line["input"] + 1
            report.endings[line["ending"]] += 1
            report.slowest = max(report.slowest, (line["seconds"], line["input"]))
            report.peak = max(report.peak, line["peak"])
            if line["why"]:
                report.findings.append(f"{name} {line['input']} (seed {seed}): {line['ending']}: {line['why']}")
    return report


def _batch(name: str, target: Target, numbers: range, seed: int, folder: Path, kept: Path) -> Iterator[dict[str, Any]]:
    """Yield how each input ended, the last one that which ended the process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _serve(name, target, numbers, seed, folder, kept, writing)
    os.close(writing)
    following = numbers.start
    with os.fdopen(reading) as lines:
        for line in map(json.loads, lines):
            following = line["input"] + 1
            yield line
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        _keep(folder / "input", kept / f"{name}_{seed}_{following}")
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        ending = "too slow" if why in ("SIGPROF", "SIGALRM") else "died"
        yield {"input": following, "ending": ending, "why": why, "seconds": 0.0, "peak": 0}


def _serve(name: str, target: Target, numbers: range, seed: int, folder: Path, kept: Path, lines: int) -> NoReturn:
    """Read the inputs of a batch in this process, which ends with them."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    torch.set_num_threads(1)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tempfile.tempdir = str(folder / "scratch")
    code = 1
    try:
        for number in numbers:
            line = _one(name, target, Random(f"{name} {seed} {number}"), folder)
            if line["why"]:
                _keep(folder / "input", kept / f"{name}_{seed}_{number}")
            os.write(lines, json.dumps({"input": number, **line}).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _one(name: str, target: Target, rng: Random, folder: Path) -> dict[str, Any]:
    """Make and read one input."""
    place, scratch = folder / "input", folder / "scratch"
    for one in (place, scratch):
        shutil.rmtree(one, ignore_errors=True)
        one.mkdir()
    target.change(folder / "seeds", place, rng)
    before, started = sorted(place.rglob("*")), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS.get(name, FEWER_SECONDS))
    signal.alarm(WALL)
    ending, why = _ending(target, place)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    left = [str(path) for path in scratch.rglob("*") if path.is_file()]
    if sorted(place.rglob("*")) != before or left:
        ending, why = "left files behind", ", ".join(left) or "beside the input"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"ending": ending, "why": why, "seconds": time.process_time() - started, "peak": peak}


def _ending(target: Target, place: Path) -> tuple[str, str]:
    """Return how reading an input ended, and what is wrong with that."""
    try:
        target.read(place)
    except UserError as error:
        text = str(error)
        if "MemoryError" in text or "Unable to allocate" in text:
            return "too much memory", text[:300]
        first, *others = text.splitlines()
        listed = first.endswith(":")  # problems, one line each
        return ("refused in several lines", text[:300]) if others and not listed else ("refused", "")
    except BaseException as error:
        where = " < ".join(
            f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[::-1][:4]
        )
        return "failed", f"{type(error).__name__}: {str(error)[:300]!r} at {where}"
    return "read", ""


def _apart(work: Callable[[], Any]) -> None:
    """Do work in a process of its own: this one keeps no threads, which a fork would lose."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit("the seeds could not be made")


def _keep(place: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(place, target, symlinks=True)


if __name__ == "__main__":
    sys.exit(main())
