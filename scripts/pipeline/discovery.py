"""Finding the scans below a folder."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from ..data.datalist import select_cases
from ..data.layouts.registry import DATALIST
from ..errors import UserError
from ..io.dicom.recognition import recognize_file
from ..io.masks import mask_suffix
from ..io.output_names import describe_passed_over, walk_files
from ..io.reading import FILE_SUFFIXES, scan_name

logger = logging.getLogger(__name__)

SEARCHED = tuple(suffix for suffix in FILE_SUFFIXES if suffix != ".img")
"""Endings of scans; the .hdr stands for a pair."""


def find_scans(path: str) -> list[dict[str, str]]:
    """List the scans and pictures below a folder, or the one that `path` names.

    Args:
        path: a folder with datalist.json, whose images are meant; another folder, which is searched
            with its subfolders; or a file.

    Returns:
        Items {"image": path}, sorted.

    Raises:
        UserError: if there is none, or if two would be given one mask.
    """
    root = Path(path)
    if (root / DATALIST).is_file():
        return [{"image": case["image"]} for case in select_cases(root, "all", masks=False)]
    files = [root] if root.is_file() else [file for _, found in walk_files(root) for file in found]
    scans = sorted(file for file in files if file.name.lower().endswith(SEARCHED))
    left_out = describe_passed_over(root, SEARCHED)
    if not scans:
        hint = "; DICOM is read by `python -m scripts segment`" if any(map(_is_dicom, files)) else ""
        found = "; ".join([f"{len(files)} files and no scan", *left_out])
        raise UserError(f"{root}: {found}; expected: {', '.join(SEARCHED)} (--dataset_dir){hint}")
    for line in left_out:
        logger.warning(f"{root}: {line}")
    _check_collisions(scans)
    return [{"image": str(scan)} for scan in scans]


def _is_dicom(path: Path) -> bool:
    try:
        return bool(recognize_file(path))
    except OSError:
        return False


def scans_root(path: str) -> str:
    """Return the folder whose subfolders the results repeat: `path`, or the folder of a file."""
    root = Path(path)
    return str(root.parent if root.is_file() else root)


def _check_collisions(scans: list[Path]) -> None:
    masks: dict[tuple[Path, str, str], list[Path]] = defaultdict(list)
    for scan in scans:
        masks[scan.parent, scan_name(scan), mask_suffix(scan)].append(scan)
    twins = [" and ".join(map(str, group)) for group in masks.values() if len(group) > 1]
    if twins:
        raise UserError(f"{'; '.join(twins)}: would be given the same mask; expected: names that differ before the dot")
