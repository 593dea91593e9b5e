"""Measure weights on labelled and on lesion-free cases, as `segment` applies them.

Run from the bundle root, with one or several weights, or folders of the trainings of an experiment:

    python docs/measure_weights.py DATA OUT NAME=WEIGHTS[,WEIGHTS...] ... [--backend auto]
        [--precision auto] [--device cpu] [--threshold 0.5] [--flips 4] [--slice_share 0.0002]
        [--through_plane_mm 3] [--size 208] [--keep_outside]

Weights of a fold of DATA are measured on that fold, and on the cases that DATA keeps apart by the
first of them; other weights on all cases, with a mark where their metadata say that they saw one,
or may have seen it (cases without infection of the same data).
Weights of the same data in another list, whose metadata cannot say so, are refused: these are of
trainings that `calibrate` did not complete, or by their own fold alone.
Threshold, flips, the minimum positive fraction of a slice, the mean over neighbouring slices and
the size that the network sees are those of the metadata unless set; trainings that were not
calibrated have a threshold of 0.5 and state no others.
OUT receives rows.csv (one row per case and NAME) and table.md (by group, and by case). A run that
was stopped resumes with the same command.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fire
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.api import InfectionSegmenter
from scripts.data.datalist import describe, read_datalist, select_cases
from scripts.data.layouts.case import Case
from scripts.errors import UserError, ended_by_mistakes
from scripts.files import write_atomic
from scripts.inference.metadata import LESION_FREE, read_metadata
from scripts.inference.segmenter import Segmenter
from scripts.inference.unseen_cases import check_data, read_infection
from scripts.io.images import is_picture
from scripts.io.volume import canonical
from scripts.messages import markdown_table, wrapped
from scripts.metrics import dice
from scripts.research.measured_rows import ROWS, keep_rows, kept_rows
from scripts.settings import describe_machine, usable_device
from scripts.training.fine_tuning import shares_data
from scripts.transforms.slice_input import SliceInput
from scripts.version import bundle_version

GROUPS = {False: "pictures", True: "negative pictures"}
BY_GROUP = {
    "n": ("case", "size"),
    "Dice": ("dice", "mean"),
    "sd": ("dice", "std"),
    "Dice, second annotator": ("dice_second", "mean"),
    "of the annotators": ("dice_annotators", "mean"),
    "sensitivity": ("sensitivity", "mean"),
    "precision": ("precision", "mean"),
    "volume error, voxels": ("volume_error", "mean"),
    "its size, % of the lesion": ("relative_error", "mean"),
    "false positives, voxels": ("false_positives", "mean"),
    "% of the lungs": ("lung_percent", "mean"),
    "largest %": ("lung_percent", "max"),
    "slices": ("slices", "sum"),
    "counted as infected": ("counted_slices", "sum"),
}
NOTE = (
    "Masks as `segment` makes them. False positives are marked voxels without infection, also in % of the voxels of "
    "both lungs as `segment` finds them, whether in the lungs or not. A slice counts as infected by the rule of the "
    "report. Empty: not defined, or no lungs were found."
)


def expand(text: str) -> tuple[str, list[Path]]:
    """Return the name and the weights of NAME=WEIGHTS; a folder stands for the weights in it."""
    name, _, places = text.partition("=")
    files: list[Path] = []
    for place in map(Path, filter(None, places.split(","))):
        files += sorted(place.rglob("run/model.pt")) if place.is_dir() else [place]
    if not name or not files:
        raise UserError(f"{text}: names no weights; expected: NAME=WEIGHTS, a file or the folder of trainings")
    return name, files


def seen_cases(metadata: Mapping[str, Any]) -> set[str] | None:
    """Return the labelled cases that weights were trained on; None where metadata cannot say.

    They are those by which `calibrate` judged trainings of the same recipe, less the own fold.
    """
    judged, fold = metadata.get("calibration", {}), metadata["data"].get("fold")
    if not judged or metadata["sha256"] in judged.get("trainings", []):
        return None
    return set(judged["cases"]) - set(fold if isinstance(fold, list) else [])


def cases_of(weights: Path, data: str, first: bool) -> Iterator[tuple[Case, bool]]:
    """Yield the cases to measure weights on, and whether they were trained on each."""
    metadata = read_metadata(weights)
    fold = metadata["data"].get("fold")
    try:
        check_data(weights, metadata, data)
    except UserError:
        shared, seen = shares_data(metadata["data"], describe(data)), seen_cases(metadata)
        if shared and seen is None:
            raise UserError(
                f"{weights}: trained on another list of this data, and its metadata do not say on which cases; "
                "expected: the list that it was trained on, or weights calibrated by trainings on every fold"
            ) from None
        # metadata do not name cases without infection
        free = shared and metadata["calibration"].get(LESION_FREE) is not None
        cases = [
            (case, case["name"] in (seen or ()) or (free and case.get("lesion_free", False)))
            for case in select_cases(data, "all", more_labels=True)
        ]
    else:
        cases = [(case, False) for case in select_cases(data, "validation", fold, more_labels=True)]
        if first and read_datalist(data)["test"]:
            cases += [(case, False) for case in select_cases(data, "test")]
    return (one for one in cases if "label" in one[0] or one[0].get("lesion_free"))


def group_of(case: Case) -> str:
    """Return the row of the table that a case belongs to."""
    free, picture = bool(case.get("lesion_free")), is_picture(case["image"])
    if picture or free:
        return GROUPS[free] if picture else "negative volumes"
    return re.split(r"[\W\d_]", case["name"])[0]


def overlap(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Return the Dice of two masks, NaN of two empty ones."""
    if not (first.any() or second.any()):
        return math.nan
    return float(dice(*(torch.from_numpy(one.astype(np.float32)).reshape(1, 1, 1, -1) for one in (first, second))))


def applied_as(segmenter: Segmenter, slice_share: float, size: int | None, keep_outside: bool) -> str:
    """Say by which version and how weights are applied; rows of one name have one such text."""
    said = f"version {bundle_version()}, {segmenter.backend.name} {segmenter.backend.precision}, "
    said += f"{segmenter.views} views, threshold {segmenter.threshold:.3g}, slice fraction {slice_share:.3g}"
    said += f", {segmenter.through_plane_mm:g} mm through plane" if segmenter.through_plane_mm else ""
    said += f", {size} x {size}" if size else ""
    return said + (", outside kept" if keep_outside else "")


def measure(segmenter: InfectionSegmenter, case: Case, slice_share: float) -> dict[str, Any]:
    """Return the row of a case."""
    result = segmenter.predict(case["image"], intensity=case.get("intensity", "auto"), name=case["name"])
    mask = canonical(result.mask, result.affine) > 0
    truth = read_infection(case["label"], case.get("label_codes")) if "label" in case else np.zeros_like(mask)
    second = read_infection(case["second"]) if "second" in case else None
    marked, lesion, both = int(mask.sum()), int(truth.sum()), int((mask & truth).sum())
    infection, lungs = result.measures["infection"], result.measures["lungs"]["total"]
    least = slice_share * math.prod(mask.shape[:2])
    areas = mask.sum(axis=(0, 1))
    wrong = marked - both
    return {
        "group": group_of(case),
        "dice": overlap(mask, truth) if lesion else math.nan,
        "dice_second": math.nan if second is None else overlap(mask, second),
        "dice_annotators": math.nan if second is None else overlap(truth, second),
        "sensitivity": both / lesion if lesion else math.nan,
        "precision": both / marked if marked and lesion else math.nan,
        "lesion": lesion,
        "marked": marked,
        "volume_error": marked - lesion if lesion else math.nan,
        "relative_error": 100 * abs(marked - lesion) / lesion if lesion else math.nan,
        "false_positives": wrong,
        "lung_voxels": lungs["lung_voxels"] if lungs else math.nan,
        "lung_percent": 100 * wrong / lungs["lung_voxels"] if lungs and lungs["lung_voxels"] else math.nan,
        "views_agree": infection["views_agree_percent"],
        "outside_lungs": infection.get("outside_lungs_voxels", math.nan),
        "slices": mask.shape[2],
        "infected_slices": int(truth.any(axis=(0, 1)).sum()),
        "counted_slices": int(((areas > 0) & (areas >= least)).sum()),
        "ood": (result.ood or {}).get("distance", math.nan),
    }


def lines_of(table: pd.DataFrame) -> list[str]:
    """Return a table as lines of Markdown."""

    def text(value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return "" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

    return markdown_table(table.columns, table.map(text).to_numpy())


def write(rows: pd.DataFrame, out: Path, head: Mapping[str, Any]) -> None:
    """Write table.md: a line per group and name, and a line per case and name."""
    named = rows[["weights", "sha256", "applied"]].drop_duplicates().to_numpy().tolist()
    stated = [*head.items(), *((name, f"{sha[:12]}, {applied}") for name, sha, applied in named)]
    rows = rows.assign(
        weights=rows["weights"].where(~rows["trained_on"].astype(bool), rows["weights"] + ", trained on")
    )
    groups = rows.groupby(["group", "weights"], sort=True).agg(**BY_GROUP).reset_index()
    groups["%"] = 100.0 * groups["counted as infected"] / groups["slices"]
    volumes = rows[rows["slices"] > 1]
    shown = ["case", "weights", "dice", "sensitivity", "precision", "dice_second", "dice_annotators", "lesion"]
    shown += ["marked", "volume_error", "false_positives", "lung_percent", "outside_lungs"]
    shown += ["slices", "infected_slices", "counted_slices", "ood"]
    points = (wrapped(f"* {key}: {value}", "  ") for key, value in stated)
    lines = ["# Weights by case", "", wrapped(NOTE), "", *points, ""]
    lines += ["## By group, mean over cases", "", *lines_of(groups), ""]
    lines += ["## Volumes by case", "", *lines_of(volumes.sort_values(["group", "case", "weights"])[shown]), ""]
    write_atomic(out / "table.md", lambda path: path.write_text("\n".join(lines), encoding="utf-8"))


def main(
    data: str,
    out: str,
    *weights: str,
    backend: str = "auto",
    precision: str = "auto",
    device: str = "",
    threshold: float | None = None,
    flips: int | None = None,
    slice_share: float | None = None,
    through_plane_mm: float | None = None,
    size: int | None = None,
    keep_outside: bool = False,
) -> None:
    """Measure, case by case."""
    target, place = Path(out), usable_device(device)
    head: dict[str, Any] = {"machine": describe_machine(place), "data": describe(data)["name"]}
    rows = kept_rows(target, **head)
    for text in weights:
        name, files = expand(text)
        known = {read_metadata(one)["sha256"] for one in files}
        for number, one in enumerate(files):
            segmenter = InfectionSegmenter(
                one, str(place), threshold, flips=flips, backend=backend, precision=precision, keep_outside=keep_outside
            )
            sha = read_metadata(one)["sha256"]
            inner = segmenter._segmenter
            if size is not None:
                inner.metadata["preprocessing"]["size"] = size
                inner.slice_input = SliceInput.from_metadata(inner.metadata)
            if through_plane_mm is not None:
                inner.through_plane_mm = through_plane_mm
            share = inner.least_slice_share if slice_share is None else slice_share
            applied = applied_as(inner, share, size, keep_outside)
            own = [row for row in rows if row["weights"] == name]
            if any(row["sha256"] not in known or row["applied"] != applied for row in own):
                raise UserError(
                    f"{target / ROWS}: holds {name} as other weights or applied otherwise; expected: another OUT"
                )
            done = {row["case"] for row in own}
            cases = [case for case in cases_of(one, data, number == 0) if case[0]["name"] not in done]
            for case, trained_on in tqdm(cases, desc=f"{name} {number + 1} of {len(files)}", unit="case"):
                row = {"case": case["name"], "weights": name, "sha256": sha, "applied": applied}
                rows.append({**row, "trained_on": trained_on, **measure(segmenter, case, share)})
                keep_rows(target, rows)
    write(pd.DataFrame(rows), target, head)
    print(f"{target / 'table.md'}")


if __name__ == "__main__":
    with ended_by_mistakes():
        fire.Fire(main)
