"""Compare lungs by thresholds and by a network with the masks of a data set.

Run from the bundle root, with weights of configs/lungs.yaml, one for each fold of DATA:

    python docs/measure_lungs.py DATA ROWS.csv WEIGHTS...

Each of the weights is measured on its own validation fold: cases with a lung mask, on the scan's
grid, slices whose mask is known (255 is unknown). ROWS.csv receives a row per case.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import metrics
from scripts.anatomy.lungs import Lungs, segment_lungs
from scripts.anatomy.tissue import segment_tissue
from scripts.data.datalist import select_cases
from scripts.data.layouts.case import Case
from scripts.errors import ended_by_mistakes
from scripts.files import write_atomic
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.lung_network import LungNetwork
from scripts.inference.metadata import read_metadata
from scripts.inference.unseen_cases import check_data
from scripts.io.reading import read_scan
from scripts.transforms.items import UNKNOWN_CODE


def overlap(lungs: Lungs, truth: NDArray[Any]) -> dict[str, float]:
    """Return Dice and IoU of the slices whose truth is known."""
    known = [z for z in range(truth.shape[2]) if not (truth[..., z] == UNKNOWN_CODE).any()]
    found = np.stack([lungs.slab(z) > 0 for z in known], axis=-1)
    maps = [torch.from_numpy(one.astype(np.float32)).reshape(1, 1, 1, -1) for one in (found, truth[..., known] > 0)]
    return {name: float(metrics.measure(name, *maps)) for name in ("dice", "iou")}


def rows(dataset_dir: str, weights: Path) -> Iterator[dict[str, Any]]:
    """Yield a row per validation case of the weights that has a lung mask."""
    metadata = read_metadata(weights)
    check_data(weights, metadata, dataset_dir)
    network, fold = LungNetwork(weights, torch.device("cpu")), metadata["data"]["fold"]
    for case in select_cases(dataset_dir, "validation", fold):
        if "lung" in case:
            yield {"case": case["name"], "patient": case["patient"], "fold": fold, **_compared(case, network)}


def _compared(case: Case, network: LungNetwork) -> dict[str, Any]:
    scan, truth = read_scan(Path(case["image"])), read_scan(Path(case["lung"])).lps()[0]
    slices = HounsfieldSlices(scan, case.get("intensity", "auto"))
    found = {
        "thresholds": segment_lungs(segment_tissue(slices.rounded(), scan.spacing_lps)),
        "network": network.find(scan, slices),
    }
    return {f"{name}_{key}": one for name, lungs in found.items() for key, one in overlap(lungs, truth).items()}


def main(dataset_dir: str, out: str, *weights: str) -> None:
    """Write ROWS.csv and print the means."""
    table = pd.DataFrame([row for one in weights for row in rows(dataset_dir, Path(one))])
    write_atomic(out, lambda path: table.to_csv(path, index=False))
    print(table.to_string(index=False))
    print(f"means over {len(table)} cases:")
    print(table.drop(columns=["case", "patient", "fold"]).mean().to_string())


if __name__ == "__main__":
    with ended_by_mistakes():
        fire.Fire(main)
