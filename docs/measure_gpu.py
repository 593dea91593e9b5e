"""Work off what needs a GPU, stage by stage, in pieces of some minutes.

Run from the bundle root, with the prepared data of `experiment weights` (docs/training.md):

    python docs/measure_gpu.py DATA OUT [--minutes 9] [--stages smoke,tests] [--parallel 3]
        [--volumes VOLUMES] [--budget FILE] [--steps N] [--seeds 3] [--final CASE] [--device cuda]

A call runs what is left and stops before the minutes are over; without --minutes it runs to the
end. A training that is stopped keeps its last epoch, and the next call resumes it. Exit codes: 0
all done or time is over, 3 some jobs failed; the next call tries these again.

VOLUMES is what `experiment paper` and `table2` train on, by default DATA. --final names a case: a
training on all others becomes OUT/full.pt. --quick replaces budgets by tiny ones, for a CPU.
OUT receives state.json, table.md (jobs, times, card, SHA-256 of weights), logs/ and the results.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fire
import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.data.datalist import fold_numbers, read_datalist
from scripts.data.phantom.dataset import write_phantom_dataset
from scripts.errors import UserError, ended_by_mistakes
from scripts.files import write_atomic, write_json
from scripts.inference.metadata import read_metadata
from scripts.inference.shipped import COMPACT, shipped_weights
from scripts.messages import markdown_table
from scripts.research.benchmark.machine import describe
from scripts.research.experiment_config import Variant, read_experiment
from scripts.settings import usable_device
from scripts.version import BUNDLE

GRACE = 30
"""Seconds before the end of a piece at which trainings are told to save and stop."""
BUDGET = "configs/presets/experiment_gpu.yaml"
QUICK = {"spatial_size": 32, "batch_size": 2, "slices_per_epoch": 4, "steps": 4, "network_def#base_width": 4}
TRAIN, EVALUATE, TAUGHT = "configs/train.yaml", "configs/evaluate.yaml", "configs/semi_supervised.yaml"
COMPARED = ("unet", "unetpp", "attention_unet", "pspnet", "deeplabv3plus", "danet", "f3net", "scrn", "cpfnet", "ce_net")
TESTED = ("data/test_loaders", "data/test_stacks", "networks/test_contract")
"""Files of tests/ with tests for CUDA, beside those called test_devices.py."""
Words = list[str]


@dataclass(frozen=True)
class Job:
    """Commands that follow one another, and where they write what they print."""

    name: str
    commands: Sequence[Words]


@dataclass(frozen=True)
class Plan:
    """The settings of a call, as in the docstring of the module."""

    data: Path
    out: Path
    volumes: Path
    device: str
    budget: Path
    steps: int | None
    seeds: int
    final: str
    quick: bool

    @property
    def variant(self) -> Variant:
        """Return the row of `experiment weights` that is trained."""
        return read_experiment("weights", ["compact" if self.quick else "full at 256"]).variants[0]


def scripts(command: str, *words: object, **options: object) -> Words:
    """Return the words of `python -m scripts COMMAND`."""
    return [sys.executable, "-m", "scripts", command, *map(str, words), *as_options(options)]


def bundle(run: str, files: Sequence[str], **settings: object) -> Words:
    """Return the words of `python -m monai.bundle run`."""
    listed = str([str(file) for file in files])
    return [sys.executable, "-m", "monai.bundle", "run", run, "--config_file", listed, *as_options(settings)]


def as_options(settings: Mapping[str, object]) -> Words:
    """Return settings as words, without those that are None."""
    return [word for name, value in settings.items() if value is not None for word in (f"--{name}", str(value))]


def smoke(plan: Plan) -> Iterator[Job]:
    """Yield a few steps of every workflow on phantoms."""
    data, out, device = phantoms(plan.out / "phantoms"), plan.out / "smoke", {"device": plan.device}
    scan, label = data / "images/phantom_001.nii.gz", data / "labels/phantom_001.nii.gz"
    small = {"spatial_size": 32 if plan.quick else 64, "batch_size": 4, "max_epochs": 1, "network_def#base_width": 4}
    shared = {"dataset_dir": data, "fold": 0, **device}
    again = {"overwrite": "true"}

    def train(run: str, *layers: str, **settings: object) -> Words:
        own = {**small, "slices_per_epoch": 8, "resume": "true", **shared, "output_dir": out / run, **settings}
        return bundle("training", [TRAIN, *layers], **own)

    def applied(run: str, **settings: object) -> list[Words]:
        given = {"checkpoint": out / run / "model.pt", **again, **device}
        folders = {"tables": out / run / "tables", "masks": out / run / "masks"}
        return [
            bundle("evaluation", [TRAIN, EVALUATE], dataset_dir=data, output_dir=folders["tables"], **given),
            bundle("inference", ["configs/inference.yaml"], dataset_dir=scan, output_dir=folders["masks"], **given),
        ]

    weights = out / "resunet/model.pt"
    adapted = {"checkpoint": weights, "network_def#base_width": None, "spatial_size": None, "slices_per_epoch": 8}
    yield Job("smoke/resunet", [train("resunet"), train("resunet", max_epochs=2), *applied("resunet")])
    yield Job(
        "smoke/after training",
        [
            train("after"),
            scripts("calibrate", out / "after/model.pt", data, slices=8, flips="true", **device),
            scripts("publish", out / "after/model.pt", out / "after/published.pt", data, **device),
            train("fine_tuned", "configs/finetune.yaml", **{**adapted, "checkpoint": out / "after/published.pt"}),
        ],
    )
    yield Job("smoke/slices on the device", [train("on_device", augment="true", cache_device="true")])
    yield Job("smoke/workers", [train("workers", augment="true", num_workers=2)])
    yield Job("smoke/float32", [train("float32", amp="false")])
    shipped = {"model": COMPACT, **device}
    segmented = [scripts("segment", scan, out / f"segment_{one}", precision=one, **shipped) for one in ("auto", "fp32")]
    yield Job("smoke/segment", segmented)
    for name in ("infnet", "cares_unet"):
        yield Job(f"smoke/{name}", [train(name, f"configs/networks/{name}.yaml"), *applied(name)])
    patches = {"patch_size": "[16,16,8]", "patches_per_volume": 2, "slices_per_epoch": None}
    volumes = train("volumes", "configs/networks/fv_paspp_unet3d.yaml", **patches)
    yield Job("smoke/volumes", [volumes, *applied("volumes")])
    given = {"class_weights": out / "classes/model.pt", **device}
    classes = [
        train("classes", "configs/multiclass.yaml", prior="truth"),
        scripts("classify", scan, out / "classified", "--overwrite", mask=label, **given),
        scripts("classify", scan, out / "classified", "--overwrite", weights=shipped_weights(COMPACT), **given),
    ]
    yield Job("smoke/classes", classes)
    own = {"training_files": str([TRAIN]), "settings": str({**small, "slices_per_epoch": 8}), "resume": "true"}
    semi = [bundle("training", [TAUGHT], output_dir=out / "semi_supervised", **shared, **own)]
    yield Job("smoke/semi-supervised", semi)
    sizes = {"ce_net": {"spatial_size": 192}}
    for name in COMPARED:
        yield Job(f"smoke/{name}", [train(name, f"configs/networks/{name}.yaml", **sizes.get(name, {}))])


def phantoms(folder: Path) -> Path:
    """Return a prepared data set of phantoms, all of ground glass, two of them unlabelled."""
    data = folder / "data"
    if not (folder / "complete").exists():
        write_phantom_dataset(folder / "scans", cases=8, size=64, slices=12, overwrite=True)
        run = scripts("prepare", folder / "scans", data, "--overwrite", folds=2)
        subprocess.run(run, cwd=BUNDLE, check=True, stdout=subprocess.DEVNULL)
        content = json.loads((data / "datalist.json").read_text(encoding="utf-8"))
        cases = [{**case, "classes": case["label"]} for case in content["training"]]
        content["unlabeled"] = [{key: case[key] for key in ("image", "name", "patient")} for case in cases[-2:]]
        write_json(data / "datalist.json", {**content, "training": cases[:-2]})
        (folder / "complete").touch()
    return data


def tests(_: Plan) -> Iterator[Job]:
    """Yield the tests that need a CUDA device."""
    files = [f"tests/{name}.py" for name in TESTED]
    files += [f"tests/{room}/test_devices.py" for room in ("configs", "pipeline", "training")]
    yield Job("tests", [[sys.executable, "-m", "pytest", *files, "-m", "gpu", "-q", "-p", "no:cacheprovider"]])


def benchmark(plan: Plan) -> Iterator[Job]:
    """Yield the benchmark."""
    quick = {"rounds": 1, "widths": 4, "size": 32, "batch": 2}
    scan = phantoms(plan.out / "phantoms") / "images/phantom_001.nii.gz" if plan.quick else None
    settings = {**(quick if plan.quick else {"rounds": 3}), "scan": scan, "device": plan.device}
    yield Job("benchmark", [scripts("benchmark", plan.out / "benchmark", **settings)])


def weights(plan: Plan) -> Iterator[Job]:
    """Yield the trainings of full width by the recipe of `experiment weights`."""
    for fold in folds(plan.data):
        yield experiment(plan, "weights", plan.data, plan.variant.name, folds=fold)
    if plan.final:
        given = {**plan.variant.settings, "steps": plan.steps, "fold": str([plan.final]), "resume": "true"}
        places = {"dataset_dir": plan.data, "output_dir": plan.out / "final", "device": plan.device}
        yield Job(
            "weights/final", [bundle("training", [TRAIN, *plan.variant.files, str(plan.budget)], **given, **places)]
        )


def figures(plan: Plan) -> Iterator[Job]:
    """Yield the tables by case, and the calibration of the final training."""
    runs = plan.out / "weights" / plan.variant.folder
    applied = {"flips": 4, "device": plan.device}
    measure = [sys.executable, "docs/measure_weights.py", str(plan.data), str(plan.out / "by_case")]
    yield Job("figures/by case", [[*measure, f"full={runs}", *as_options(applied)]])
    if plan.final:
        final, others = (
            plan.out / "final/model.pt",
            [runs / f"seed_0/fold_{one}/run/model.pt" for one in folds(plan.data)],
        )
        calibrate = scripts("calibrate", final, plan.data, *others, flips="true", device=plan.device)
        publish = scripts("publish", final, plan.out / "full.pt", plan.data, device=plan.device)
        yield Job("figures/final", [calibrate, publish])


def paper(plan: Plan) -> Iterator[Job]:
    """Yield the rows of `experiment paper`, with several seeds."""
    yield from rows(plan, "paper", plan.seeds)


def table2(plan: Plan) -> Iterator[Job]:
    """Yield the rows of `experiment table2`, with one seed."""
    yield from rows(plan, "table2", 1)


def rows(plan: Plan, name: str, seeds: int) -> Iterator[Job]:
    """Yield a job per row of an experiment; of two rows in a quick call."""
    variants = read_experiment(name).variants
    for variant in variants[:: len(variants) - 1] if plan.quick else variants:
        yield experiment(plan, name, plan.volumes, variant.name, seeds=seeds)


def experiment(plan: Plan, name: str, data: Path, variant: str, **options: object) -> Job:
    """Return the job of one row; several may fill one folder at the same time."""
    own = {"budget": plan.budget, "steps": plan.steps, "variants": variant, "device": plan.device, **options}
    label = f"{variant}, fold {options['folds']}" if "folds" in options else variant
    return Job(f"{name}/{label}", [scripts("experiment", name, data, plan.out / name, **own)])


def folds(data: Path) -> list[int]:
    """Return the folds of a prepared data set."""
    return fold_numbers(read_datalist(str(data))["training"])


STAGES = {one.__name__: one for one in (smoke, tests, benchmark, weights, figures, paper, table2)}


class Piece:
    """One call: starts jobs, stops them in time, and keeps what was done in state.json."""

    def __init__(self, out: Path, device: str, parallel: int, minutes: float) -> None:
        self.out, self.path, self.parallel = out, out / "state.json", parallel
        self.machine = describe(usable_device(device))
        self.state: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            self.state = json.loads(self.path.read_text(encoding="utf-8"))
        self.end = time.monotonic() + 60 * minutes if minutes else float("inf")
        self.stopped = False
        for one in (signal.SIGINT, signal.SIGTERM):  # also where a shell started this with SIGINT ignored
            signal.signal(one, self._stop)

    @property
    def over(self) -> bool:
        """Whether nothing new may start."""
        return self.stopped or time.monotonic() > self.end - GRACE

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def record_of(self, job: Job) -> dict[str, Any]:
        """Return what is known of a job; a job with other commands is a new one."""
        if self.state.get(job.name, {}).get("commands") != job.commands:
            new = {"commands": job.commands, "done": 0, "seconds": 0.0, "pieces": 0, "status": "left"}
            self.state[job.name] = new
        return self.state[job.name]

    def run(self, jobs: Sequence[Job]) -> None:
        """Run jobs in parallel until all have ended or the time is over."""
        waiting = [job for job in jobs if self.record_of(job)["status"] != "finished"]
        threads = max(1, (os.cpu_count() or 1) // max(1, min(self.parallel, len(waiting))))
        running: dict[str, tuple[subprocess.Popen[bytes], Job, float]] = {}
        while running or (waiting and not self.over):
            while waiting and len(running) < self.parallel and not self.over:
                job = waiting.pop(0)
                self.record_of(job)["pieces"] += 1
                running[job.name] = (self._start(job, threads), job, time.monotonic())
            if self.over:
                self._interrupt([process for process, _, _ in running.values()])
            for process, job, started in list(running.values()):
                if process.poll() is not None:
                    del running[job.name]
                    if self._ended(job, process.returncode, time.monotonic() - started):
                        running[job.name] = (self._start(job, threads), job, time.monotonic())
            time.sleep(0.2)

    def _start(self, job: Job, threads: int) -> subprocess.Popen[bytes]:
        """Start the next command of a job, out of reach of this terminal's Ctrl-C."""
        log = self.out / "logs" / f"{job.name.replace('/', ' ')}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        words = job.commands[self.record_of(job)["done"]]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        with log.open("a", encoding="utf-8") as file:
            print("$", *words, file=file, flush=True)
            streams = {"stdout": file, "stderr": subprocess.STDOUT}
            return subprocess.Popen(words, cwd=BUNDLE, env=environment, process_group=0, **streams)

    def _ended(self, job: Job, code: int, seconds: float) -> bool:
        """Record how a command ended; return whether the job goes on with the next one."""
        record = self.record_of(job)
        record["seconds"] += seconds
        record["done"] += code == 0
        finished = record["done"] == len(job.commands)
        record["status"] = "finished" if finished else "left" if code == 0 or self.over else "failed"
        record["device"] = self.machine["device"]
        write_json(self.path, self.state)
        if finished or record["status"] == "failed":
            print(f"{record['status']}: {job.name}, {record['seconds']:.0f} s", flush=True)
        return code == 0 and not finished and not self.over

    def _interrupt(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Let processes save and end; kill those that take too long."""
        for process in processes:
            process.send_signal(signal.SIGINT)
        last = time.monotonic() + GRACE - 5
        for process in processes:
            try:
                process.wait(max(0.0, last - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def report(self, jobs: Sequence[Job]) -> None:
        """Write table.md."""
        lines = ["# What was run", ""]
        lines += [f"* {key}: {value}" for key, value in self.machine.items() if key not in ("flags", "platform")]
        shown = [(job.name, self.record_of(job)) for job in jobs]
        columns = ["job", "status", "minutes", "pieces", "device"]
        content = [
            [name, one["status"], f"{one['seconds'] / 60:.1f}", str(one["pieces"]), one.get("device", "")]
            for name, one in shown
        ]
        lines += ["", *markdown_table(pd.Index(columns), pd.DataFrame(content).to_numpy()), ""]
        found = [path for path in sorted(self.out.rglob("*.pt")) if path.with_suffix(".json").exists()]
        found = [path for path in found if smoke.__name__ not in path.relative_to(self.out).parts]
        named = [[str(path.relative_to(self.out)), read_metadata(path)["sha256"]] for path in found]
        if named:
            lines += markdown_table(pd.Index(["weights", "SHA-256"]), pd.DataFrame(named).to_numpy())
        write_atomic(self.out / "table.md", lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def main(
    data: str,
    out: str,
    volumes: str = "",
    minutes: float = 0.0,
    stages: str | Sequence[str] = tuple(STAGES),
    parallel: int = 3,
    budget: str = BUDGET,
    steps: int | None = None,
    seeds: int = 3,
    final: str = "",
    device: str = "cuda",
    quick: bool = False,
) -> None:
    """Run one piece."""
    chosen = [one.strip() for one in (stages.split(",") if isinstance(stages, str) else stages)]
    if unknown := [one for one in chosen if one not in STAGES]:
        raise UserError(f"--stages has {', '.join(unknown)}; expected: {', '.join(STAGES)}")
    folder = Path(out).resolve()
    piece = Piece(folder, device, parallel, minutes)
    file = (BUNDLE / budget).resolve()
    if quick:
        file = folder / "budget.yaml"
        content = {**yaml.safe_load((BUNDLE / budget).read_text(encoding="utf-8")), **QUICK}
        write_atomic(file, lambda path: path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8"))
    plan = Plan(Path(data).resolve(), folder, Path(volumes or data).resolve(), device, file, steps, seeds, final, quick)
    jobs = {name: list(STAGES[name](plan)) for name in chosen}
    everything = [job for stage in jobs.values() for job in stage]
    try:
        for stage in jobs.values():
            piece.run(stage)
    finally:
        write_json(piece.path, piece.state)
        piece.report(everything)
    status = [piece.record_of(job)["status"] for job in everything]
    left = [job.name for job, one in zip(everything, status, strict=True) if one == "left"]
    failed = [job.name for job, one in zip(everything, status, strict=True) if one == "failed"]
    print(f"{status.count('finished')} of {len(status)} jobs finished; {folder / 'table.md'}")
    if left:
        print(f"left, by the same command: {'; '.join(left)}")
    if failed:
        print(f"failed, see {folder / 'logs'}: {'; '.join(failed)}", file=sys.stderr)
        raise SystemExit(3)


if __name__ == "__main__":
    with ended_by_mistakes():
        fire.Fire(main)
