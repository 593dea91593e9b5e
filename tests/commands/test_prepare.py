"""`prepare` writes links or copies beside a list, and nothing that is the user's is touched."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.commands.prepare import prepare
from scripts.data.datalist import read_datalist, select_cases
from scripts.data.layouts import prepared
from scripts.data.layouts.build import build_datalist
from scripts.errors import UserError
from scripts.files import UNFINISHED


def volume(path: Path, codes=(), slices=5) -> None:
    values = np.zeros((4, 3, slices), np.int16)
    for index, code in enumerate(codes):
        values[0, 0, index] = code
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([-1, -1, 2, 1.0])), path)


@pytest.fixture
def source(tmp_path):
    """Six cases of a generic data set, each with two infected slices of five."""
    folder = tmp_path / "place" / "source"
    for name in "abcdef":
        volume(folder / "images" / f"{name}.nii.gz", (-900,))
        volume(folder / "labels" / f"{name}.nii.gz", (1, 1))
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "place" / "new" / "out"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_out_is_a_data_set_with_the_files_of_the_source(source, out, capsys):
    before = content(source)
    prepare([source], out, folds=3)
    assert content(source) == before
    datalist = json.loads((out / "datalist.json").read_text())
    assert datalist == read_datalist(out)
    assert [case["image"] for case in datalist["training"]] == [f"images/{name}.nii.gz" for name in "abcdef"]
    for name, case in zip("abcdef", select_cases(out, "all"), strict=True):
        assert Path(case["label"]).read_bytes() == before[f"labels/{name}.nii.gz"]
    printed = capsys.readouterr().out
    assert re.search(r"training +6 +6 +30 +12 \(40%\)", printed)
    assert re.search(r"fold 0 +2 +2 +10 +4 \(40%\)", printed)


def test_out_and_source_give_the_same_folds(source, out):
    prepare([source], out)
    folds = {case["name"]: case["fold"] for case in select_cases(source, "all")}
    assert {case["name"]: case["fold"] for case in select_cases(out, "all")} == folds


def test_links_are_relative_and_survive_a_common_move(source, out, tmp_path):
    prepare([source], out, folds=2)
    link = out / "images" / "a.nii.gz"
    assert link.is_symlink()
    assert not os.path.isabs(os.readlink(link))
    (tmp_path / "place").rename(tmp_path / "elsewhere")
    assert len(select_cases(tmp_path / "elsewhere" / "new" / "out", "all")) == 6


def test_copies_stand_alone(source, out):
    before = content(source)
    prepare([source], out, folds=2, copy=True)
    source.rename(source.with_name("gone"))
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert len(select_cases(out, "all")) == 6
    assert (out / "images" / "c.nii.gz").read_bytes() == before["images/c.nii.gz"]


def test_a_source_that_moved_away_is_told(source, out):
    prepare([source], out, folds=2)
    source.rename(source.with_name("gone"))
    with pytest.raises(UserError, match=r"12 of 12 files are missing(.|\n)*a link to "):
        read_datalist(out)


def test_parts_of_one_volume_share_one_file(source, out, capsys):
    prepare([source], out, folds=5, split="slice")
    assert sorted(path.name for path in (out / "images").iterdir()) == [f"{name}.nii.gz" for name in "abcdef"]
    training = select_cases(out, "training", 0)
    assert len(training) == 24
    assert all(len(case["slices"]) == 1 for case in training)
    printed = capsys.readouterr().out
    assert re.search(r"training +30 +6 +30 +12 \(40%\)", printed)
    assert "warning: split by slice" in printed
    assert read_datalist(out)["warnings"]


def test_several_sources_become_one_list(source, out, tmp_path):
    for name in ("x", "y"):
        volume(tmp_path / "second" / "images" / f"{name}.nii.gz", (-900,))
        volume(tmp_path / "second" / "labels" / f"{name}.nii.gz", (1,))
    prepare([source, tmp_path / "second"], out, folds=2)
    datalist = read_datalist(out)
    assert datalist["name"] == "source+second"
    assert [case["name"] for case in datalist["training"]] == [*"abcdefxy"]


@pytest.mark.parametrize("relation", [".", "inside", "inside/deeper", ".."])
@pytest.mark.parametrize("overwrite", [False, True])
def test_out_in_around_or_equal_to_the_source_is_refused(source, relation, overwrite):
    before = content(source.parent)
    with pytest.raises(UserError, match="lies in the source"):
        prepare([source], source / relation, folds=2, overwrite=overwrite)
    assert content(source.parent) == before


def test_out_that_leads_into_the_source_through_a_link_is_refused(source, tmp_path):
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(UserError, match="lies in the source"):
        prepare([source], tmp_path / "link" / "out", folds=2)


def test_a_folder_in_use_is_refused_with_and_without_overwrite(source, out):
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        prepare([source], out, folds=2)
    with pytest.raises(UserError, match=r"did not write(.|\n)*thesis.txt"):
        prepare([source], out, folds=2, overwrite=True)
    assert content(out) == {"thesis.txt": b"mine"}
    with pytest.raises(UserError, match="is a file"):
        prepare([source], out / "thesis.txt", folds=2)


def test_an_empty_folder_is_taken(source, out):
    out.mkdir(parents=True)
    prepare([source], out, folds=2)
    assert len(select_cases(out, "all")) == 6


def test_overwrite_replaces_an_earlier_output(source, out):
    prepare([source], out, folds=2)
    for folder in ("images", "labels"):
        (source / folder / "f.nii.gz").unlink()
    with pytest.raises(UserError, match="is not empty"):
        prepare([source], out, folds=3)
    prepare([source], out, folds=3, copy=True, overwrite=True)
    assert sorted(path.name for path in (out / "images").iterdir()) == [f"{name}.nii.gz" for name in "abcde"]
    assert read_datalist(out)["folds"] == 3
    prepare([source], out, folds=2, overwrite=True)
    assert read_datalist(out)["folds"] == 2


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("name", ["labels/a.nii.gz", "datalist.json", "notes.txt", "images/extra.nii.gz"])
def test_overwrite_stops_at_what_the_user_changed_or_added(source, out, copy, name):
    prepare([source], out, folds=2, copy=copy)
    (out / name).unlink(missing_ok=True)
    (out / name).write_text("corrected by hand")
    before = content(out)
    with pytest.raises(UserError, match=f"1 files(.|\n)*{name}"):
        prepare([source], out, folds=2, overwrite=True)
    assert content(out) == before


def siblings(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir()) if out.parent.exists() else []


@pytest.mark.parametrize("step", ["_put", "write_json", "replace_folder"])
@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_nothing(source, out, monkeypatch, step, failure):
    def fail(*_args):
        raise failure

    monkeypatch.setattr(prepared, step, fail)
    with pytest.raises(type(failure)):
        prepare([source], out, folds=2)
    assert siblings(out) == []


@pytest.mark.parametrize("step", ["_put", "write_json", "rename"])
def test_an_interrupted_overwrite_leaves_the_earlier_output(source, out, monkeypatch, step):
    prepare([source], out, folds=2)
    before = content(out)
    rename = Path.rename

    def fail(*arguments):
        new_into_place = arguments[0].parent.name.startswith(UNFINISHED) and arguments[0].name == "out"
        if step != "rename" or new_into_place:
            raise OSError("disk full")
        return rename(*arguments)

    monkeypatch.setattr(*((Path, "rename", fail) if step == "rename" else (prepared, step, fail)))
    with pytest.raises(OSError, match="disk full"):
        prepare([source], out, folds=3, overwrite=True)
    assert content(out) == before
    assert siblings(out) == ["out"]


def test_a_broken_source_writes_nothing(source, out):
    (source / "labels" / "a.nii.gz").unlink()
    with pytest.raises(UserError, match="no label 'a'"):
        prepare([source], out, folds=2)
    assert not out.exists()


def test_a_prepared_folder_is_no_source(source, out, tmp_path):
    prepare([source], out, folds=2)
    with pytest.raises(UserError, match="prepared already"):
        prepare([out], tmp_path / "again", folds=2)


def test_where_links_are_not_possible_copying_is_named(source, out, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError("privilege not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(UserError, match=r"privilege not held.*expected: --copy"):
        prepare([source], out, folds=2)
    assert siblings(out) == []


def test_others_may_read_the_output(source, out):
    prepare([source], out, folds=2)
    probe = out.parent / "probe"
    probe.mkdir()
    assert out.stat().st_mode == probe.stat().st_mode


def test_the_facts_that_are_printed_are_right(source):
    _, facts = build_datalist([source], folds=2)
    assert set(facts.slices.values()) == {5}
    assert all(infected.tolist() == [True, True, False, False, False] for infected in facts.infected.values())


def test_the_command_ends_with_code_2_and_one_error(source, out, pytestconfig):
    command = [sys.executable, "-m", "scripts", "prepare", source, out, "--folds", "2"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=False, cwd=pytestconfig.rootpath)
        for _ in range(2)
    )
    assert (first.returncode, (out / "datalist.json").is_file()) == (0, True), first.stderr
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: {out}: is not empty")
    assert "Traceback" not in second.stderr
