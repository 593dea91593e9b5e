"""Choose cases for the multi-class network, each with the infection map that is its prior."""

import logging
from pathlib import Path
from typing import Any, cast

import torch

from ..anatomy.field_of_view import is_cropped
from ..data.datalist import Fold, Split, select_cases
from ..data.layouts.case import Case
from ..errors import UserError
from ..inference.metadata import read_metadata
from .pseudo_labels import SCALE, map_folder, write_pseudo_labels

logger = logging.getLogger(__name__)

TRUTH = "truth"
FILE = "file"


def class_cases(
    dataset_dir: str,
    split: Split,
    fold: Fold,
    prior: str,
    folder: str,
    device: str | torch.device,
    may_be_empty: bool = False,
    held_out: str | None = None,
) -> list[Case]:
    """Choose the cases of a split that have a multi-class label, and give each its prior.

    `prior` is "truth", the infection mask; "file", the "prior" of each case in datalist.json; else
    the weights of a network that finds infection, see `weights_of_fold`. Its probabilities,
    computed on `device`, go into a subfolder of `folder`, one for the same weights and images.
    Other arguments are those of `select_cases`.

    Returns:
        The cases, with "prior" and, as needed, "prior_codes" or "prior_scale".

    Raises:
        UserError: if no case has a multi-class label, a case lacks its prior, or the weights cannot
            be used.
    """
    labelled = select_cases(dataset_dir, split, fold, labelled=True, may_be_empty=may_be_empty, held_out=held_out)
    if not labelled:
        return []
    cases = [case for case in labelled if "classes" in case]
    if not cases:
        found = f"{len(labelled)} cases of split {split}, none with a multi-class label"
        raise UserError(f'{dataset_dir}: {found}; expected: cases with "classes" in datalist.json')
    if len(cases) < len(labelled):
        logger.info(f"{len(labelled) - len(cases)} of {len(labelled)} cases have no multi-class label and are left out")
    if prior == TRUTH:
        renamed = {"label": "prior", "label_codes": "prior_codes", "label_scale": "prior_scale"}
        true = [{**case, **{new: case.get(old) for old, new in renamed.items() if old in case}} for case in cases]
        return cast(list[Case], true)
    if prior == FILE:
        lacking = [case["name"] for case in cases if "prior" not in case]
        if lacking:
            raise UserError(
                f"{dataset_dir}: {len(lacking)} cases have no prior ({', '.join(lacking[:3])}); expected: "
                '"prior" in datalist.json for every case, or --prior truth, or --prior WEIGHTS'
            )
        return cases
    weights = weights_of_fold(prior, fold)
    paths = write_pseudo_labels(weights, cases, map_folder(folder, str(weights), cases), torch.device(device))
    kept = [{key: value for key, value in case.items() if key != "prior_codes"} for case in cases]
    maps = [{**case, "prior": str(path), "prior_scale": SCALE} for case, path in zip(kept, paths, strict=True)]
    return cast(list[Case], maps)


def with_classes_as_label(cases: list[Case]) -> list[dict[str, Any]]:
    """Return the cases of an evaluation, whose label is the multi-class one."""
    return [{**case, "label": case["classes"]} for case in cases]


def whole_scan(field_of_view: str, lung_only: bool, because: str = "the prior is a map of the whole scan") -> bool:
    """Return False, that nothing is cropped, which `because` explains.

    Raises:
        UserError: if the network is to see less than that.
    """
    if is_cropped(field_of_view) or lung_only:
        found = f"field_of_view is {field_of_view!r}, lung_only {lung_only}"
        raise UserError(f"{found}; expected: scan and false, because {because}")
    return False


def weights_of_fold(prior: str, fold: Fold) -> Path:
    """Return the weights that give the prior; "{fold}" in their path stands for the fold.

    Raises:
        UserError: if there are none.
    """
    weights = Path(prior.replace("{fold}", str(fold)))
    if not weights.is_file():
        ways = "those of Semi-Inf-Net (configs/semi_infnet.yaml), or --prior WEIGHTS, truth or file"
        raise UserError(f"{weights}: no such weights for the prior; expected: {ways}")
    return weights


def describe_prior(prior: str, fold: Fold) -> str:
    """Return the prior for checkpoint metadata: "truth", "file", or the weights' SHA-256."""
    return prior if prior in (TRUTH, FILE) else str(read_metadata(weights_of_fold(prior, fold))["sha256"])
