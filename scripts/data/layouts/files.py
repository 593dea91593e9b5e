"""Read what recognising and checking an image file needs: names, headers, label values."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import UserError
from ...io.grids import Grid
from ...io.reading import FILE_SUFFIXES, read_grid, read_voxels

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Volumes in one file: a header that names its voxels' file cannot be linked to under another
name."""
PICTURES = (".png", ".jpg", ".jpeg")
_UNREADABLE = (UserError, OSError, EOFError, ValueError, SyntaxError)


@dataclass(frozen=True)
class Header:
    """Size and place of an image.

    Attributes:
        shape: (X, Y, Z) of a volume as stored, (width, height) of a picture.
        affine: (4, 4) voxel index to mm in RAS; None for a picture.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None

    @property
    def slices(self) -> int:
        """Number of axial slices: the stored third axis; 1 for a picture."""
        return self.shape[2] if len(self.shape) > 2 else 1

    def grid(self, name: str) -> Grid:
        """What `check_belongs` compares."""
        return Grid(name, self.shape, self.affine)


def suffix_of(path: Path, suffixes: tuple[str, ...] = VOLUMES + PICTURES) -> str | None:
    """Find which of `suffixes` a file name ends with, in any case; None when it is none of them."""
    return next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), None)


def stem_of(path: Path) -> str:
    """Take the extension off a file name, `.nii.gz` as a whole.

    >>> stem_of(Path("labels/case.01.nii.gz"))
    'case.01'
    """
    return path.name[: len(path.name) - len(suffix_of(path) or path.suffix)]


def is_picture(path: Path) -> bool:
    """Tell a slice (PNG, JPG) from a volume by its name."""
    return suffix_of(path, PICTURES) is not None


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
        if entry.name.startswith(".") or suffix_of(path, suffixes) is None:
            continue
        if path.is_symlink() and not path.exists():
            problems.append(f"{path}: a link to {os.readlink(path)}, which is not there")
        if not path.is_file():
            continue
        stem = stem_of(path)
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
    images = [entry for entry in entries if suffix_of(entry, (*FILE_SUFFIXES, ".dcm", ".ima")) and entry.is_file()]
    hidden = [entry for entry in images if entry.name.startswith(".")]
    return [entry for entry in images if entry not in hidden and suffix_of(entry, suffixes) is None], hidden


def read_header(path: Path) -> Header:
    """Read size and affine, and make sure that the file is complete.

    A picture is decoded. Of a volume in gzip the length that gzip wrote behind the data is
    compared; the data themselves are only read when that disagrees.

    Raises:
        UserError: unreadable, truncated, of several volumes, coloured, or with an affine that is no
            mapping.
    """
    try:
        return _picture_header(path) if is_picture(path) else _volume_header(path)
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read, {_reason(path, error)}") from error


def read_size(path: Path) -> Header:
    """Read size and affine as `read_header` does, of a picture without decoding it.

    Raises:
        UserError: see `read_header`.
    """
    try:
        if not is_picture(path):
            return _volume_header(path)
        with Image.open(path) as picture:
            return Header(picture.size, None)
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read, {_reason(path, error)}") from error


def read_values(path: Path) -> NDArray[np.generic]:
    """Read the stored values of a label, (height, width) of a picture, (x, y, z) of a volume.

    Raises:
        UserError: unreadable or truncated.
    """
    try:
        if is_picture(path):
            return _read_picture(path)
        return read_voxels(path)
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read, {_reason(path, error)}") from error


def _reason(path: Path, error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    return first.removeprefix(f"{path}: ")


def _read_picture(path: Path) -> NDArray[np.generic]:
    with Image.open(path) as picture:
        values = np.asarray(picture)  # a palette gives its indices, which are the class codes
    if values.ndim == 2:
        return values
    grey = values[..., 0]
    colours = values.shape[-1] - (values.shape[-1] in (2, 4))  # without alpha
    if any((values[..., channel] != grey).any() for channel in range(1, colours)):
        raise UserError(f"{path}: is in colour, expected is a grey picture")
    return grey


def _picture_header(path: Path) -> Header:
    height, width = _read_picture(path).shape
    return Header((width, height), None)


def _volume_header(path: Path) -> Header:
    shape, affine = read_grid(path)
    return Header(shape, affine)
