"""Apply the weights of one training to its training cases and to those of its validation fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..data.datalist import select_cases
from ..data.layouts.case import Case
from ..data.stacks import chosen_slices
from ..errors import UserError
from ..io.images import is_picture
from ..networks.registry import same_network
from ..transforms.items import IMAGE, LABEL
from .backends.choice import Backend
from .building import preprocessing_from_metadata, trained_network
from .lesion_free import Marked, lesion_free_volumes, mark_volumes
from .ood import OODScore, deep_layers
from .operating_point import CANDIDATES, LEVELS, CaseCounts, count_levels
from .predictor import Predictor, slices_in_view
from .segmenter import Segmenter
from .tta import ViewAgreement, agreement_percent
from .unseen_cases import check_data, predict_cases, unseen_cases


class CalibrationRun:
    """The weights of a training and its data; the arguments are those of `calibrate`."""

    def __init__(
        self,
        weights: Path,
        data: str,
        flips: bool | int,
        slices_of_training: int,
        device: torch.device,
        size: int,
        backend: Backend,
        through_plane_mm: float,
    ) -> None:
        self.weights, self.data, self.slices_of_training = weights, data, slices_of_training
        self.network, metadata = trained_network(weights, device)
        self._applied = device, flips, backend
        trained = {"size": (metadata.get("training") or metadata["preprocessing"])["size"]}
        preprocessing = {**metadata["preprocessing"], "size": size}
        point = {**metadata["operating_point"], "through_plane_mm": through_plane_mm}
        changed = {"preprocessing": preprocessing, "operating_point": point, "training": trained}
        self.metadata = {**metadata, **changed}
        self.fold = metadata["data"].get("fold")

    def check(self, expected: Mapping[str, Any]) -> None:
        """Refuse another recipe than that of checkpoint metadata, and a fold of other data."""
        differs = [] if same_network(self.metadata["network"], expected["network"]) else ["network"]
        differs += [key for key in ("preprocessing", "training") if self.metadata[key] != expected[key]]
        if differs:
            found = " and ".join(differs)
            raise UserError(f"{self.weights}: another {found}; expected: trainings with the recipe of the weights")
        check_data(self.weights, self.metadata, self.data)
        if self.metadata["operating_point"]["through_plane_mm"] and self.metadata["data"].get("split") == "slice":
            found = "data split by slice, whose neighbours the weights saw"
            raise UserError(f"{self.weights}: {found}; expected with --through-plane-mm: data split by patient")

    @cached_property
    def unseen(self) -> list[Case]:
        """The cases of the validation fold."""
        return unseen_cases(self.data, self.metadata)

    @cached_property
    def layers(self) -> dict[str, int]:
        """The layers whose features are compared."""
        return deep_layers(self.network, int(self.metadata["preprocessing"]["size"]))

    @cached_property
    def predictor(self) -> Predictor:
        """The network as it is applied; its inferer collects the features."""
        return Predictor(self.network, self.metadata, *self._applied, tuple(self.layers))

    def _take_features(self) -> Tensor:
        features = self.predictor.inferer.features
        assert features is not None  # there are layers
        return features.take()

    @cached_property
    def features(self) -> Tensor:
        """Feature means (N, C) of evenly chosen slices of the training's own cases."""
        self._take_features()
        preprocessing = preprocessing_from_metadata(self.metadata)
        cases = select_cases(self.data, "training", self.fold, labelled=True)
        images = sum(is_picture(case["image"]) for case in cases)
        each = max((self.slices_of_training - images) // max(len(cases) - images, 1), 1)
        for case in tqdm(cases, desc="training slices", unit="case"):
            item = preprocessing({key: value for key, value in case.items() if key != LABEL})
            inside = np.intersect1d(slices_in_view(item), chosen_slices(case, item[IMAGE]))
            chosen = inside[np.unique(np.linspace(0, len(inside) - 1, min(each, len(inside))).round().astype(int))]
            self.predictor.scan_logits(item, chosen)
        return self._take_features()

    def count_unseen(self) -> Iterator[CaseCounts]:
        """Yield what calibration keeps of each case of the validation fold."""
        ood = OODScore.of(self.layers, self.features, threshold=0.0)
        inferer = self.predictor.inferer
        inferer.agreement = ViewAgreement(*(level / LEVELS for level in CANDIDATES)) if inferer.views > 1 else None
        for case, (probability,), label in predict_cases(self.unseen, [self.predictor]):
            voxels, lesion = count_levels(probability.cpu().numpy(), label.cpu().numpy())
            features = self._take_features()
            score = float(ood(features).mean()) if len(features) else None
            views = None if inferer.agreement is None else _percent_by_level(inferer.agreement)
            yield CaseCounts(case["name"], is_picture(case["image"]), voxels, lesion, score, views)

    def mark_lesion_free(self, threshold: float, smallest_lesion_mm3: float) -> list[Marked]:
        """Measure what is marked on each volume without infection of the validation fold."""
        cases = lesion_free_volumes(self.data, self.metadata)
        if not cases:
            return []
        device, flips, backend = self._applied
        point = threshold, smallest_lesion_mm3, flips, backend.name, backend.precision
        loaded = self.network, self.metadata
        return mark_volumes(cases, Segmenter(self.weights, str(device), *point, loaded=loaded))


def _percent_by_level(agreement: ViewAgreement) -> NDArray[np.float64]:
    percent = np.full(LEVELS, np.nan)
    for level, rows in zip(CANDIDATES, agreement.take().split(2, dim=1), strict=True):
        found = agreement_percent(rows)
        percent[level] = np.nan if found is None else found
    return percent
