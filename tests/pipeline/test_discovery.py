from __future__ import annotations

from pathlib import Path

import pytest

from scripts.errors import UserError
from scripts.pipeline.discovery import find_scans, scans_root


def test_scans_are_found_below_a_folder_or_by_name(tmp_path: Path) -> None:
    for name in ("b/x.nii.gz", "a/x.nii.gz", "c.PNG", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [scan["image"] for scan in find_scans(str(tmp_path))] == [
        str(tmp_path / name) for name in ("a/x.nii.gz", "b/x.nii.gz", "c.PNG")
    ]
    assert find_scans(str(tmp_path / "c.PNG")) == [{"image": str(tmp_path / "c.PNG")}]
    assert scans_root(str(tmp_path / "c.PNG")) == str(tmp_path) == scans_root(str(tmp_path))


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"1 files and no scan; expected: \.nii\.gz, \.nii, .*\.png"):
        find_scans(str(tmp_path))


def test_two_scans_with_one_mask_are_refused(tmp_path: Path) -> None:
    for name in ("x.nii.gz", "x.nii", "x.png"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"x\.nii and .*x\.nii\.gz: would be given the same mask"):
        find_scans(str(tmp_path))


def test_names_may_hold_dots_and_hidden_files_are_no_scans(tmp_path: Path) -> None:
    for name in ("1.2.840.1.nii.gz", "1.2.840.2.nii.gz", "._1.2.840.1.nii.gz"):
        (tmp_path / name).write_text("")
    assert len(find_scans(str(tmp_path))) == 2
