"""Apply checkpoints to labelled cases that they did not see, those of the validation fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..data.datalist import SAME_FOLD, SAME_LIST, describe, select_cases
from ..data.layouts.case import Case
from ..data.stacks import chosen_slices
from ..errors import UserError
from ..io.reading import read_scan
from ..io.volume import canonical
from ..transforms.items import IMAGE, LABEL, PRED
from ..transforms.labels import InfectionMaskd
from ..transforms.postprocessing import EvaluationOutput
from .building import preprocessing_from_metadata
from .predictor import Predictor, slices_in_view


def unseen_cases(data: str, metadata: Mapping[str, Any]) -> list[Case]:
    """Return the cases of a data set that lie in the validation fold of checkpoint metadata."""
    return select_cases(data, "validation", metadata["data"].get("fold"), labelled=True)


def predict_cases(
    cases: Sequence[Case], predictors: Sequence[Predictor]
) -> Iterator[tuple[Case, list[Tensor], Tensor]]:
    """Apply networks with the same preprocessing to labelled cases.

    Yields:
        Each case, the probabilities of each network and the label, (X, Y, Z) on the scan's own
        grid. Z is the number of the case's own "slices" where it has some: the networks may have
        been trained on the others.
    """
    preprocessing = preprocessing_from_metadata(predictors[0].metadata, label_grid="scan")
    through_plane_mm = predictors[0].metadata["operating_point"]["through_plane_mm"]
    output = EvaluationOutput(preprocessing, "scan", through_plane_mm)
    for case in tqdm(cases, desc="unseen cases", unit="case"):
        item = preprocessing(dict(case))
        own = chosen_slices(case, item[IMAGE])
        seen = slices_in_view(item)
        if not through_plane_mm:
            seen = np.intersect1d(seen, own)
        logits = [predictor.scan_logits(item, seen) for predictor in predictors]
        maps = [output({**item, PRED: one})[PRED].as_tensor()[0][..., own] for one in logits]
        yield case, maps, item[LABEL].as_tensor()[0][..., own]


def read_infection(path: str, codes: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Read where a mask marks infection, (X, Y, Z) in LPS order; `codes` as in `InfectionMaskd`."""
    scan = read_scan(Path(path))
    stored = torch.from_numpy(np.ascontiguousarray(scan.real()))
    mask = InfectionMaskd(LABEL)({LABEL: stored, "label_codes": codes})[LABEL]
    return canonical((mask >= 0.5).cpu().numpy(), scan.affine)


def check_data(weights: Path, metadata: Mapping[str, Any], data: str) -> None:
    """Refuse data to which the weights' validation fold does not belong.

    Raises:
        UserError: if the weights were trained on other data, or on all of them.
    """
    stated = metadata["data"]
    fold = stated.get("fold")
    described = describe(data, fold)
    if fold is None or any(stated.get(key) != described[key] for key in (*SAME_LIST, *SAME_FOLD)):
        raise UserError(f"{weights}: was validated on fold {fold} of other data; expected: trainings on {data}")
