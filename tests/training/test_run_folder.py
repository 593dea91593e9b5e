from __future__ import annotations

from pathlib import Path

import pytest

from scripts.errors import UserError
from scripts.training.run_folder import claim_folder, claim_run_folder, clear_run_folder


def test_a_used_folder_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_text("x")
    with pytest.raises(UserError, match=r"last\.pt.*another --output_dir, --resume true .*--overwrite true"):
        claim_run_folder(str(tmp_path), resume=False, overwrite=False)
    assert (tmp_path / "last.pt").exists()


def test_resume_keeps_and_overwrite_removes_the_run_only(tmp_path: Path) -> None:
    for name in ("last.pt", "model.pt", "model.json", "notes.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "tensorboard").mkdir()
    claim_run_folder(str(tmp_path), resume=True, overwrite=False)
    assert len(list(tmp_path.iterdir())) == 5
    claim_run_folder(str(tmp_path), resume=False, overwrite=True)
    clear_run_folder(str(tmp_path), overwrite=False)
    assert len(list(tmp_path.iterdir())) == 5
    clear_run_folder(str(tmp_path), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_died_before_its_first_epoch_does_not_block_the_next(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    claim_run_folder(str(tmp_path), resume=False, overwrite=False)


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both true"):
        claim_run_folder(str(tmp_path), resume=True, overwrite=True)


def test_a_claim_writes_nothing(tmp_path: Path) -> None:
    claim_run_folder(str(tmp_path / "a" / "b"), resume=False, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        claim_run_folder(str(tmp_path / "a" / "b"), resume=False, overwrite=False)


def test_any_file_counts_where_results_have_no_fixed_names(tmp_path: Path) -> None:
    (tmp_path / "mask.nii.gz").write_text("x")
    with pytest.raises(UserError, match=r"mask\.nii\.gz"):
        claim_folder(str(tmp_path), None, overwrite=False)
    claim_folder(str(tmp_path), None, overwrite=True)
    assert (tmp_path / "mask.nii.gz").exists()  # replaced file by file, not removed


def test_the_run_that_a_training_starts_from_is_never_replaced_by_it(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("x")
    with pytest.raises(UserError, match=r"model\.pt: lies in the run that --overwrite would remove"):
        claim_run_folder(str(tmp_path), resume=False, overwrite=True, checkpoint=str(tmp_path / "model.pt"))
    claim_run_folder(str(tmp_path / "next"), resume=False, overwrite=True, checkpoint=str(tmp_path / "model.pt"))
