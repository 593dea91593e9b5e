"""Sections `segment` and `memory`: a scan from file to results, each time in a new process.

Both use the compact weights on every device, so that machines can be compared.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from ...data.phantom.scan import make_phantom
from ...errors import UserError
from ...files import read_json, write_atomic
from ...inference.segmenter import Segmenter
from ...inference.shipped import COMPACT, shipped_weights
from ...io.output_names import MANIFEST
from ...pipeline.case import CaseSegmenter, read_case
from ...pipeline.inputs import expand_inputs
from ...pipeline.result import StageTimer
from ...version import PACKAGE
from .peers import SCAN_SHAPE, SCAN_SPACING
from .timing import Plan, Row

RUNS: dict[str, dict[str, str]] = {"torch, fp32": {"backend": "torch", "precision": "fp32"}, "default": {}}
"""Options of `segment` that are compared, by the row's name; the first is the reference."""
STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_segment(plan: Plan) -> Iterator[dict[str, Any]]:
    """Segment a scan with the options of `RUNS` in turns, each time in a new process.

    The first round is stated apart: it reads from a cold disk and compiles what is kept compiled.

    Yields:
        {"scan", "rows"} after every round; a row holds "first" and "rounds", see `segment_once`.

    Raises:
        UserError: if the system does not tell what a process took, or `segment` fails.
    """
    if not hasattr(os, "wait4"):
        raise UserError("--sections segment needs Linux or macOS; expected: --sections network")
    scan, words = benchmark_scan(plan)
    rows: list[Row] = [{"run": name, "options": options, "rounds": []} for name, options in RUNS.items()]
    for number in tqdm(range(plan.rounds + 1), desc="segment", unit="round", leave=False):
        for row in rows:
            measured = segment_once(scan, plan, row["options"])
            row["rounds"] += [measured] if number else []
            row.setdefault("first", measured)
        if number:
            yield {"scan": words, "rows": rows}


def benchmark_scan(plan: Plan) -> tuple[Path, str]:
    """Return the scan and what it is; a phantom is drawn once and stays beside the results."""
    if plan.scan is not None:
        return plan.scan.resolve(), plan.scan.name
    path = plan.out.resolve() / "phantom.nii.gz"
    shape = " x ".join(map(str, SCAN_SHAPE))
    if not path.exists():
        tqdm.write(f"{path}: drawing a phantom of {shape} voxels takes about a minute")
        write_atomic(path, _write_phantom)
    return path, f"phantom of {shape} voxels (synthetic, no patient), NIfTI"


def _write_phantom(path: Path) -> None:
    """Write a phantom that is drawn at half the size in plane, where drawing costs a quarter."""
    (x, y, z), (dx, dy, dz) = SCAN_SHAPE, SCAN_SPACING
    phantom = make_phantom(0, (x // 2, y // 2, z), (2 * dx, 2 * dy, dz))
    image = nib.Nifti1Image(phantom.image.repeat(2, 0).repeat(2, 1), phantom.affine @ np.diag([0.5, 0.5, 1, 1]))
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"synthetic phantom, no patient"
    nib.save(image, path)


def segment_once(scan: Path, plan: Plan, options: Mapping[str, str]) -> dict[str, Any]:
    """Run `segment` in a new process: "wall_s", "cpu_s", "peak_gb", and seconds by "stages"."""
    with tempfile.TemporaryDirectory(dir=plan.out) as folder:
        output, log = Path(folder).resolve() / "out", Path(folder) / "log.txt"
        words = [sys.executable, "-m", PACKAGE.name, "segment", str(scan), str(output), "--device", str(plan.device)]
        words += ["--model", COMPACT]
        words += [word for name, value in options.items() for word in (f"--{name}", value)]
        started = time.perf_counter()
        with log.open("w") as file:
            process = subprocess.Popen(words, cwd=PACKAGE.parent, stdout=file, stderr=subprocess.STDOUT)
            try:
                _, process.returncode, usage = os.wait4(process.pid, 0)
            except BaseException:  # interrupted: nobody would wait for it
                process.kill()
                raise
        wall = time.perf_counter() - started
        if process.returncode:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["killed"]
            raise UserError(f"{scan}: `segment` failed ({said[0]}); expected: another --scan")
        cases = read_json(output / MANIFEST)["cases"]
    stages: Counter[str] = Counter()
    for case in cases:
        stages.update(case["timings_s"])
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_gb": peak, "stages": dict(stages)}


def measure_memory(plan: Plan) -> Iterator[dict[str, Any]]:
    """Take the peak of the resident memory by stage, once with each of the options of `RUNS`.

    Yields:
        {"scan", "rows"} after every run; a row holds "loaded_gb" and "stages" in GB.

    Raises:
        UserError: if the system does not tell the peak.
    """
    if not RESET_PEAK.exists():
        raise UserError("--sections memory needs Linux; expected: --sections network,segment")
    scan, words = benchmark_scan(plan)
    rows: list[Row] = []
    for name, options in tqdm(RUNS.items(), desc="memory", unit="run", leave=False):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            measured = pool.submit(stage_peaks, scan, str(plan.device), options).result()
        rows.append({"run": name, "options": options, **measured})
        yield {"scan": words, "rows": rows}


def stage_peaks(source: Path, device: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Segment a scan in this process: its memory before, and the peak in every stage, in GB."""
    timer = StagePeaks()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        model = CaseSegmenter(Segmenter(shipped_weights(COMPACT), device, **options))
        loaded = resident_gb("VmRSS")
        case = expand_inputs([source])[0]
        with timer("read"):
            scan = read_case(case, stack)
        model.segment(scan, timer=timer).save(Path(folder) / "results")
    return {"loaded_gb": loaded, "voxels": scan.values.size, "stored": str(scan.values.dtype), "stages": timer.peaks}


@dataclass
class StagePeaks(StageTimer):
    """Seconds and peak memory by stage."""

    peaks: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of the block, and keep the highest peak of the stage."""
        RESET_PEAK.write_text("5")
        try:
            with super().__call__(stage):
                yield
        finally:
            self.peaks[stage] = max(self.peaks.get(stage, 0.0), resident_gb("VmHWM"))


def resident_gb(name: str) -> float:
    """Return VmRSS, the memory of this process now, or VmHWM, its peak since it was reset."""
    found = re.search(rf"^{name}:\s*(\d+) kB", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) * 1024 / 1e9 if found else 0.0
