"""Lists the image files of a data set by their names."""

import os
from pathlib import Path

from ...io.dicom.recognition import DICOM_SUFFIXES
from ...io.reading import FILE_SUFFIXES, scan_name

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Volumes in one file: a header that names its voxels' file cannot be linked to under another
name."""


def file_at(path: Path) -> Path:
    """Step into a folder with the name of the file in it, as some mirrors unzip: `x.nii/x.nii`."""
    inner = path / path.name
    return inner if path.is_dir() and inner.is_file() else path


def list_files(folder: Path, suffixes: tuple[str, ...], problems: list[str]) -> dict[str, Path]:
    """List the image files directly in a folder by their names without extension, sorted.

    Args:
        folder: folder to list; a missing one gives an empty result.
        suffixes: extensions to take.
        problems: gets one line for each second file of the same name (`a.nii` beside `a.nii.gz`)
            and each link to a file that is not there.
    """
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        path = file_at(entry)
        if entry.name.startswith(".") or not path.name.lower().endswith(suffixes):
            continue
        if path.is_symlink() and not path.exists():
            problems.append(f"{path}: a link to {os.readlink(path)}, which is not there")
        if not path.is_file():
            continue
        stem = scan_name(path)
        if stem in found:
            problems.append(f"{path}: duplicate case name '{stem}', {found[stem].name} has it as well")
        else:
            found[stem] = path
    return found


def other_images(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """List what `list_files` passes over although it is named as an image.

    Returns:
        Files of other formats; hidden files, such as the `._a.nii.gz` that macOS leaves beside
        `a.nii.gz`.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    named = (*FILE_SUFFIXES, *DICOM_SUFFIXES)
    images = [entry for entry in entries if entry.name.lower().endswith(named) and entry.is_file()]
    hidden = [entry for entry in images if entry.name.startswith(".")]
    others = [entry for entry in images if entry not in hidden and not entry.name.lower().endswith(suffixes)]
    return others, hidden
