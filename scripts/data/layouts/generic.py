"""Any other data: images/ beside labels/ with equal file names, volumes or pictures."""

from __future__ import annotations

from pathlib import Path

from scripts.data.layouts.base import PICTURE_BINARY, Findings, Layout, new_case, pair
from scripts.data.layouts.files import PICTURES, VOLUMES, is_picture, list_files
from scripts.data.layouts.patients import patient_of_scan, patient_of_slice


def _matches(root: Path) -> bool:
    return (root / "images").is_dir() and (root / "labels").is_dir()


def _collect(root: Path) -> Findings:
    """A volume is a patient of its own unless its name tells more; the patient of a picture is unknown."""
    found = Findings(label_values=PICTURE_BINARY)
    images = list_files(root / "images", VOLUMES + PICTURES, found.problems)
    labels = list_files(root / "labels", VOLUMES + PICTURES, found.problems)
    for stem in pair(images, labels, "label", root / "labels", found.problems):
        patient = patient_of_slice(stem) if is_picture(images[stem]) else patient_of_scan(stem)
        found.training.append(new_case(stem, images[stem], patient, labels[stem]))
    return found


GENERIC = Layout("generic", "images/ with labels/, equal file names (NIfTI, PNG, JPG)", _matches, _collect)
