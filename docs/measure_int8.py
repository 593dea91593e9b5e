"""Measure what int8 would save, and change: quantised by NNCF, applied by OpenVINO, on scans.

Run from the bundle root; `pip install nncf` beside the bundle, which does not need it:

    python docs/measure_int8.py OUT CALIBRATION SCANS... [--weights models/model.pt] [--images 300]

CALIBRATION is the scan, or a folder of scans, whose slices tell the ranges of the activations.
Weights and activations become int8, activations asymmetric (NNCF's preset "mixed"), but for the
first convolution and the last three. OUT receives rows.csv, a row per scan: time of the network and
marks in float32 and in int8. A run that was stopped resumes with the same command.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import fire
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.errors import UserError, ended_by_mistakes
from scripts.files import sha256
from scripts.inference.backends.choice import OPENVINO_BATCH
from scripts.inference.backends.openvino_network import OpenVinoNetwork
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.segmenter import Segmentation, Segmenter
from scripts.pipeline.case import read_case
from scripts.pipeline.inputs import ScanInput, expand_inputs
from scripts.pipeline.result import StageTimer
from scripts.research.measured_rows import keep_rows, kept_rows
from scripts.settings import describe_machine
from scripts.version import bundle_version

CONVOLUTIONS = "Convolution", "ConvolutionBackpropData"
IN_FLOAT = 1, 3
"""Convolutions at the beginning and at the end that stay in float32."""


def calibration_batches(segmenter: Segmenter, cases: list[ScanInput], images: int) -> list[NDArray[np.float32]]:
    """Return what the network sees of evenly spaced slices, batch by batch."""
    found = []
    for case in cases:
        with ExitStack() as stack:
            scan = read_case(case, stack)
            slices = HounsfieldSlices(scan)
            box = segmenter.visible_box(scan, slices)
            chosen = np.linspace(box[2].start, box[2].stop - 1, max(images // len(cases), 1)).astype(int)
            found += [segmenter.slice_input(slices[int(index)][box[:2]])[None] for index in np.unique(chosen)]
    batch = OPENVINO_BATCH[segmenter.backend.precision]
    return [torch.stack(part).numpy() for part in zip(*[iter(found)] * batch, strict=False)]


def quantised(batches: list[NDArray[np.float32]], segmenter: Segmenter) -> Segmenter:
    """Return a segmenter with the same weights in int8."""
    import nncf

    convert = OpenVinoNetwork._convert

    def convert_to_int8(self: OpenVinoNetwork, shape: tuple[int, ...]) -> Any:
        model = convert(self, shape)
        layers = [one.get_friendly_name() for one in model.get_ordered_ops() if one.get_type_name() in CONVOLUTIONS]
        first, last = IN_FLOAT
        ignored = nncf.IgnoredScope(names=layers[:first] + layers[-last:], types=["Gather"])
        preset = nncf.QuantizationPreset.MIXED
        return nncf.quantize(
            model, nncf.Dataset(batches), preset=preset, subset_size=len(batches), ignored_scope=ignored
        )

    uncached = mock.patch("scripts.inference.backends.compiled_cache.read", return_value=None)
    unkept = mock.patch("scripts.inference.backends.compiled_cache.write")
    with mock.patch.object(OpenVinoNetwork, "_convert", convert_to_int8), uncached, unkept:
        return Segmenter(segmenter.weights, backend="openvino", precision="fp32")


def timed(segmenter: Segmenter, case: ScanInput) -> tuple[Segmentation, float]:
    """Segment a case; return the result and the network's seconds."""
    timer = StageTimer()
    with ExitStack() as stack:
        scan = read_case(case, stack)
        done = segmenter.segment(scan, HounsfieldSlices(scan), timer=timer)
    return done, timer.seconds["network"]


def main(out: str, calibration: str, *scans: str, weights: str = "models/model.pt", images: int = 300) -> None:
    """Measure, scan by scan."""
    if not scans:
        raise UserError("no scans; expected: OUT CALIBRATION SCANS...")
    given = {"calibration": str(Path(calibration).resolve()), "images": images, "weights": sha256(weights)}
    rows = kept_rows(out, version=bundle_version(), machine=describe_machine(torch.device("cpu")), **given)
    plain = Segmenter(weights, backend="openvino", precision="fp32")
    batches = calibration_batches(plain, expand_inputs([calibration], Path(out)), images)
    int8 = quantised(batches, plain)
    done = {row["case"] for row in rows}
    for case in tqdm([one for one in expand_inputs(list(scans), Path(out)) if one.folder not in done], unit="scan"):
        (exact, seconds), (coarse, seconds_int8) = timed(plain, case), timed(int8, case)
        union = int(np.count_nonzero(exact.mask | coarse.mask))
        differing = int(np.count_nonzero(exact.mask != coarse.mask))
        row = {"case": case.folder, "fp32_s": round(seconds, 3), "int8_s": round(seconds_int8, 3)}
        row |= {"fp32_voxels": int(exact.mask.sum()), "int8_voxels": int(coarse.mask.sum())}
        row |= {"differing_voxels": differing, "dice": 1 - differing / (2 * union - differing) if union else 1.0}
        rows.append(row)
        keep_rows(out, rows)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    with ended_by_mistakes():
        fire.Fire(main)
