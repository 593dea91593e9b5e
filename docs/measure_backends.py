"""Compare backends, precisions, views and sizes on cases that the weights did not see.

Run from the bundle root, with the weights of each fold's training:

    python docs/measure_backends.py DATA OUT WEIGHTS... [--sizes 192,224,256] [--device cpu]

OUT receives rows.csv (one row per case, size, backend, precision and number of views), table.md and
curve.png. Dice is that of masks on the scan's own grid at the metadata's threshold; seconds are
those of the network alone. A run that was stopped resumes with the same command.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire
import pandas as pd
import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.errors import UserError, ended_by_mistakes
from scripts.files import write_atomic
from scripts.inference.backends.choice import TORCH, Backend, choose_backend
from scripts.inference.building import trained_network
from scripts.inference.predictor import Predictor
from scripts.inference.tta import FLIPPED_AXES
from scripts.inference.unseen_cases import check_data, predict_cases, unseen_cases
from scripts.io.images import is_picture
from scripts.messages import markdown_table, wrapped
from scripts.metrics import dice
from scripts.research.measured_rows import keep_rows, kept_rows
from scripts.settings import describe_machine, usable_device
from scripts.transforms.preprocessing import IMAGE
from scripts.version import bundle_version

ROW = ["weights", "case", "size", "backend", "precision"]
SETTING = ["kind", "size", "views"]


class Views:
    """The mean over a number of views, which takes over those that were applied before."""

    def __init__(self, predictor: Predictor, views: int, before: Views | None) -> None:
        self.predictor, self.metadata, self.views, self.before = predictor, predictor.metadata, views, before

    def scan_logits(self, item: dict[str, Any], seen: Any) -> torch.Tensor:
        """Return logits (1, X, Y, Z), see `Predictor.scan_logits`."""
        total, self.seconds, first = None, 0.0, 0
        if self.before:
            total, self.seconds, first = self.before.total, self.before.seconds, self.before.views
        for axes in [(), *FLIPPED_AXES[self.views]][first:]:
            turned = [axis - 1 for axis in axes]  # of an item, which has no batch
            started = time.perf_counter()
            logits = self.predictor.scan_logits({**item, IMAGE: item[IMAGE].flip(turned)}, seen).flip(turned)
            self.seconds += time.perf_counter() - started
            total = logits if total is None else total + logits
        self.total = total
        return total / self.views


def available(device: torch.device) -> list[Backend]:
    """Return what can apply a network here, torch in float32 first."""
    found = []
    for name in ("torch", "openvino"):
        for precision in ("fp32", "bf16"):
            try:
                found.append(choose_backend(name, precision, device))
            except UserError as error:
                print(f"left out: {error}")
    return found


def measure(weights: Path, data: str, size: int, rows: list[dict[str, Any]], device: torch.device) -> Iterator[None]:
    """Add the rows of one training and size that are missing; yields after each case."""
    network, metadata = trained_network(weights, device)
    check_data(weights, metadata, data)
    metadata = {**metadata, "preprocessing": {**metadata["preprocessing"], "size": size}}
    done = {tuple(row[name] for name in ROW) for row in rows}
    missing: dict[tuple[Backend, ...], list[Any]] = {}
    backends = available(device)
    for case in unseen_cases(data, metadata):
        names = metadata["sha256"], case["name"], size
        wanted = [one for one in backends if (*names, one.name, one.precision) not in done]
        missing.setdefault(tuple(wanted), []).append(case)
    for wanted, cases in missing.items():
        judged = []
        for backend in wanted:
            predictor, last = Predictor(network, metadata, device, test_time_flips=1, backend=backend), None
            predictor(torch.zeros(1, 1, size, size, 1), "a first image, for which OpenVINO compiles")
            for views in FLIPPED_AXES:
                last = Views(predictor, views, last)
                judged.append((backend, last))
        for case, maps, label in predict_cases(cases, [one for _, one in judged]) if wanted else ():
            truth = (label >= 0.5).float().flatten(1)[None, None]
            for (backend, one), probability in zip(judged, maps, strict=True):
                mask = (probability >= metadata["operating_point"]["threshold"]).float().flatten(1)[None, None]
                names = metadata["sha256"], case["name"], size, backend.name, backend.precision
                rows.append(
                    dict(zip(ROW, names, strict=True))
                    | {"kind": "image" if is_picture(case["image"]) else "volume", "views": one.views}
                    | {"dice": float(dice(mask, truth)), "voxels": int(mask.sum()), "lesion_voxels": int(truth.sum())}
                    | {"slices": label.shape[-1], "seconds": round(one.seconds, 3)}
                )
            yield


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a line per kind, size, number of views, backend and precision."""
    keys = ["weights", "case", *SETTING]
    is_torch = (rows["backend"] == TORCH.name) & (rows["precision"] == TORCH.precision)
    paired = rows.merge(rows[is_torch][[*keys, "dice", "voxels"]], on=keys, suffixes=("", "_torch"))
    paired["change"] = paired["dice"] - paired["dice_torch"]
    paired["changed_voxels"] = (paired["voxels"] - paired["voxels_torch"]).abs()
    paired["ms"] = 1000 * paired["seconds"] / paired["slices"]
    groups = paired.groupby([*SETTING, "backend", "precision"])
    return groups.agg(
        n=("dice", "size"),
        dice=("dice", "mean"),
        sd=("dice", "std"),
        change=("change", "mean"),
        worst_change=("change", lambda one: one.loc[one.abs().idxmax()]),
        most_changed_voxels=("changed_voxels", "max"),
        seconds_a_scan=("seconds", "mean"),
        ms_a_slice=("ms", "mean"),
    ).reset_index()


def write(rows: pd.DataFrame, out: Path, device: torch.device) -> None:
    """Write table.md and, where there are volumes, curve.png."""
    found = table(rows)
    texts = found.map(lambda one: f"{one:.4f}" if isinstance(one, float) else str(one))
    head = "Dice per case, mean and sd (n - 1); change against torch in float32 with the same views and size. "
    head = wrapped(head + str(describe_machine(device)))
    text = "\n".join([head, "", *markdown_table(texts.columns, texts.to_numpy()), ""])
    write_atomic(out / "table.md", lambda path: path.write_text(text, encoding="utf-8"))
    volumes = found[found["kind"] == "volume"]
    if volumes.empty:
        return
    figure = Figure(figsize=(7, 5), layout="constrained")
    axis = figure.subplots()
    for name, line in volumes.groupby(["backend", "precision", "size"]):
        axis.plot(line["seconds_a_scan"], line["dice"], marker="o", label="{} {} {}".format(*name))
    axis.set(
        xscale="log", xlabel="seconds of the network a scan; 1, 2 and 4 views", ylabel="mean Dice of unseen volumes"
    )
    axis.legend(fontsize="small")
    write_atomic(out / "curve.png", lambda path: figure.savefig(path))


def main(data: str, out: str, *weights: str, sizes: str | tuple[int, ...] = (192, 224, 256), device: str = "") -> None:
    """Measure, case by case."""
    place, target = usable_device(device), Path(out)
    given = {"data": str(Path(data).resolve()), "machine": describe_machine(place)}
    rows = kept_rows(target, version=bundle_version(), **given)
    for number, path in enumerate(weights):
        for size in sizes if isinstance(sizes, tuple) else [int(sizes)]:
            print(f"weights {number + 1} of {len(weights)}, size {size}: {path}")
            for _ in measure(Path(path), data, size, rows, place):
                keep_rows(target, rows)
    write(pd.DataFrame(rows), target, place)
    print(f"{target / 'table.md'}")


if __name__ == "__main__":
    with ended_by_mistakes():
        fire.Fire(main)
