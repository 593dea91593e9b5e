"""Assemble report.json: everything that was found in one scan, and with which model."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import nibabel as nib
import numpy as np

from ..files import digest
from ..inference.segmenter import Segmenter
from ..inference.tta import stated_flips
from ..io.volume import Note, Scan
from ..version import bundle_version
from .patient import describe_patient

FORMAT = 1
RESEARCH_USE = "Research use only, not a medical device."
DEMONSTRATION = (
    "DEMONSTRATION WEIGHTS: the network was trained on synthetic scans only; its result says nothing about a patient."
)
_DIGITS = 6


def describe_model(segmenter: Segmenter) -> dict[str, Any]:
    """Describe the weights, of whose path only the name, and the operating point."""
    metadata = segmenter.metadata
    data = metadata["data"]
    return {
        "version": bundle_version(),
        "weights": segmenter.weights.name,
        "weights_sha256": metadata["sha256"],
        "metadata_sha256": digest(metadata),
        "network": metadata["network"]["name"],
        "preprocessing": metadata["preprocessing"],
        "operating_point": {
            "threshold": segmenter.threshold,
            "smallest_lesion_mm3": segmenter.smallest_lesion_mm3,
            "test_time_flips": stated_flips(segmenter.views),
            "through_plane_mm": segmenter.through_plane_mm,
            "least_slice_share": segmenter.least_slice_share,
            "least_views_agree_percent": segmenter.least_views_agree_percent,
            "keep_outside": segmenter.keep_outside,
        },
        "lesion_free": segmenter.lesion_free,
        "backend": segmenter.backend.describe(),
        "synthetic": bool(data.get("synthetic")),
        "trained_on": data.get("name"),
    }


def build_report(
    scan: Scan,
    measures: Mapping[str, Any],
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    timings_s: Mapping[str, float],
    notes: Iterable[Note] = (),
    familiarity: Mapping[str, float | None] | None = None,
    change: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Assemble the report of one scan.

    Args:
        scan: the scan, with the findings of its reader.
        measures: what `measure_infection` gives.
        model: what `describe_model` gives.
        settings: what the user chose or left to its default: intensity, threshold, device, ...
        timings_s: seconds per step.
        notes: further findings, such as those about the anatomy.
        familiarity: out-of-distribution score ("distance" from the training data) and its threshold
            ("limit"); None where the checkpoint metadata has none.
        change: what `describe_change` gives; None without an earlier report.

    Returns:
        What JSON can hold: numbers have six digits, those that are not finite are None. The keys
        are stable while "format" is 1. The input's folder is left out, since it often names a
        person.
    """
    findings = [*scan.notes, *notes]
    report = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "intended_use": RESEARCH_USE,
        "demonstration": DEMONSTRATION if model["synthetic"] else None,
        "case": _describe_case(scan),
        "notes": [asdict(note) for note in dict.fromkeys(findings)],  # without duplicates
        "measures": measures,
        "change": change,
        "familiarity": familiarity,
        "model": model,
        "settings": settings,
        "timings_s": timings_s,
    }
    return {key: plain(value) for key, value in report.items()}


def _describe_case(scan: Scan) -> dict[str, Any]:
    case: dict[str, Any] = {
        "name": scan.name,
        "input": scan.path.name,
        "kind": scan.kind,
        "patient": describe_patient(scan),
        "shape_voxels": list(scan.values.shape),
        "stored_type": str(scan.values.dtype),
        "voxel_size_known": scan.voxel_size_known,
        "file_count": max(len(scan.files), 1),
        "facts": scan.facts,
    }
    if scan.voxel_size_known:
        case["spacing_mm"] = list(scan.spacing)
        case["axes_point_to"] = "".join(code or "?" for code in nib.aff2axcodes(scan.affine))
    return case


def plain(value: Any) -> Any:
    """Return a value as `report.json` holds it: numbers of six digits, None if not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, float | np.floating):
        return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None
    return str(value)
