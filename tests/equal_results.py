"""What two runs of `segment` wrote, without times, threads and random identifiers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pydicom

RANDOM = ("SOPInstanceUID", "SeriesInstanceUID", "DimensionOrganizationUID")
"""Attributes of a DICOM SEG that are new in each, beside its dates and times."""


def written(output: Path) -> dict[str, Any]:
    """Every file of an output folder by its path; what is compared of it byte for byte, as far as
    it states no time."""
    files = sorted(path for path in output.rglob("*") if path.is_file())
    return {path.relative_to(output).as_posix(): _comparable(path) for path in files}


def _comparable(path: Path) -> Any:
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text()))
    if path.suffix == ".html":
        text = re.sub(r"neural network, [-\d]+ [:\d]+ UTC", "", path.read_text())
        return re.sub(r'<th scope="row">seconds</th><td>[^<]*</td>', "", text)
    if path.suffix == ".dcm":
        seg = pydicom.dcmread(path)
        seg.walk(_drop_random)
        return seg.to_json()
    return path.read_bytes()


def _drop_random(dataset: pydicom.Dataset, element: pydicom.DataElement) -> None:
    if element.keyword in RANDOM or element.VR in ("DA", "TM", "DT"):
        del dataset[element.tag]


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        left_out = {"created", "finished", "timings_s", "machine"}  # a worker may have fewer threads
        return {key: _without_times(value) for key, value in content.items() if key not in left_out}
    return [_without_times(one) for one in content] if isinstance(content, list) else content
