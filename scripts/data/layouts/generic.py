"""Any other data: images/ beside labels/ with equal file names, volumes or pictures."""

from pathlib import Path

from ...io.images import PICTURE_SUFFIXES, is_picture
from ...messages import some
from .base import PICTURE_BINARY, Findings, Layout, has_folders, new_case, pair
from .files import VOLUMES, file_at, list_files, other_images
from .patients import patient_of_scan, patient_of_slice

_SUFFIXES = ", ".join(VOLUMES + PICTURE_SUFFIXES)


def _collect(root: Path) -> Findings:
    """Take a volume for a patient of its own unless its name tells more; images have none."""
    found = Findings(label_values=PICTURE_BINARY)
    images, labels = (_list(root / name, found) for name in ("images", "labels"))
    if not images and not labels and not found.problems:
        count = sum(1 for name in ("images", "labels") for _ in (root / name).iterdir())
        found.problems.append(f"{root}: {count} files in images/ and labels/ and no image; expected: {_SUFFIXES}")
    for stem in pair(images, labels, "label", root / "labels", found.problems):
        patient = patient_of_slice(stem) if is_picture(images[stem]) else patient_of_scan(stem)
        found.training.append(new_case(stem, images[stem], patient, labels[stem]))
    return found


def _list(folder: Path, found: Findings) -> dict[str, Path]:
    """List a folder's images; what is left out is told."""
    others, hidden = other_images(folder, VOLUMES + PICTURE_SUFFIXES)
    found.problems += [f"{path}: a format that is not read here; expected: {_SUFFIXES}" for path in others]
    inner = [path for path in folder.iterdir() if path.is_dir() and file_at(path) == path]
    if folders := [path.name for path in inner if any(other_images(path, ()))]:
        found.warnings.append(f"{folder.name}/: {len(folders)} folders were passed over ({some(folders)})")
    if hidden:
        names = some([path.name for path in hidden])
        found.warnings.append(f"{folder.name}/: {len(hidden)} hidden files were passed over ({names})")
    return list_files(folder, VOLUMES + PICTURE_SUFFIXES, found.problems)


GENERIC = Layout(
    "generic",
    "images/ with labels/, equal file names (NIfTI, NRRD, MHA, PNG, JPG, BMP)",
    has_folders("images", "labels"),
    _collect,
)
