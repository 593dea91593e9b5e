"""Measure what it saves, and costs, to leave out views of slices that the others settle.

Run from the bundle root, with scans of any kind:

    python docs/measure_views.py OUT SCANS... [--weights models/model.pt] [--margins 0,1,2,3,4]

A slice is settled where its first view lies `margin` logits below the decision threshold, or the
mean of more views lies less far below it, see `scripts.inference.tta.Settling`. OUT receives
rows.csv (one row per scan and margin; in the row without a margin every view is applied) and
table.md. Marks outside of the lungs count too. A run that was stopped resumes with the same
command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import fire
import numpy as np
import pandas as pd
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.errors import ended_by_mistakes
from scripts.files import sha256, write_atomic
from scripts.inference.backends.openvino_network import OpenVinoNetwork
from scripts.inference.backends.torch_network import TorchNetwork
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.segmenter import Segmenter
from scripts.inference.tta import Settling
from scripts.messages import markdown_table
from scripts.pipeline.case import read_case
from scripts.pipeline.inputs import ScanInput, expand_inputs
from scripts.research.measured_rows import keep_rows, kept_rows
from scripts.version import bundle_version


@contextmanager
def applied_images() -> Iterator[list[int]]:
    """Collect how many images a backend is given, call by call."""
    counts: list[int] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if isinstance(module, OpenVinoNetwork | TorchNetwork):
            counts.append(len(given[0]))

    hook = register_module_forward_pre_hook(note)
    try:
        yield counts
    finally:
        hook.remove()


def measure(segmenter: Segmenter, case: ScanInput, margins: list[float]) -> list[dict[str, Any]]:
    """Return a row without a margin and one per margin."""
    with ExitStack() as stack:
        scan = read_case(case, stack)
        slices = HounsfieldSlices(scan)
        rows: list[dict[str, Any]] = []
        every = np.zeros(0)
        for margin in (None, *margins):
            settling = None if margin is None else Settling(segmenter.threshold, margin)
            segmenter.predictor.inferer.settling = settling
            with applied_images() as applied:
                mask = segmenter.segment(scan, slices).mask
            every = mask if margin is None else every
            rows.append(
                {
                    "case": case.folder,
                    "margin": margin,
                    "slices": len(slices),
                    "applied": sum(applied),
                    "marked_voxels": int(mask.sum()),
                    "differing_voxels": int(np.count_nonzero(mask != every)),
                }
            )
    return rows


def table(rows: pd.DataFrame) -> str:
    """Return the table over the scans: a row per margin."""
    every = rows[rows.margin.isna()].set_index("case")
    lines = []
    for margin, found in rows.dropna(subset="margin").groupby("margin"):
        share = found.set_index("case").applied / every.applied.loc[found.case]
        differing = found.differing_voxels
        lines.append(
            [
                f"{margin:g}",
                f"{100 * share.mean():.0f} ({100 * share.min():.0f} to {100 * share.max():.0f})",
                f"{(differing > 0).sum()}",
                f"{differing.sum():,}",
            ]
        )
    head = ["margin, logits", "images applied, % of every view: mean (range)", "scans that differ", "voxels"]
    total = f"n = {len(every)} scans, {every.slices.sum():,} slices, {every.marked_voxels.sum():,} marked voxels"
    return "\n".join([total, "", *markdown_table(head, lines), ""])


def main(out: str, *scans: str, weights: str = "models/model.pt", margins: Any = (0, 1, 2, 3, 4)) -> None:
    """Measure all scans; see the top of this file."""
    chosen = [float(margin) for margin in (margins if isinstance(margins, tuple | list) else [margins])]
    rows = kept_rows(out, version=bundle_version(), weights=sha256(weights), margins=chosen)
    segmenter = Segmenter(weights, keep_outside=True)
    done = {row["case"] for row in rows}
    cases = [case for case in expand_inputs(list(scans), Path(out)) if case.folder not in done]
    for case in tqdm(cases, unit="scan", disable=None):
        rows += measure(segmenter, case, chosen)
        keep_rows(out, rows)
    text = table(pd.DataFrame(rows))
    write_atomic(Path(out) / "table.md", lambda path: path.write_text(text))
    print(text)


if __name__ == "__main__":
    with ended_by_mistakes():
        fire.Fire(main)
