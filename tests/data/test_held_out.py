"""What is held out for the final measurement never enters a training."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.data.datalist import select_cases
from scripts.data.held_out import is_held_out, read_held_out
from scripts.data.layouts.base import new_case
from scripts.data.layouts.build import build_datalist
from scripts.data.layouts.case import all_cases
from scripts.data.layouts.prepared import write_prepared
from scripts.data.splits import patients_of
from scripts.errors import UserError
from tests.chains import CONFIGS, chain

LIST = CONFIGS / "held_out.txt"
SCANS = (
    *("coronacases_003", "coronacases_006", "coronacases_009", "radiopaedia_27_86410_0", "radiopaedia_29_86490_1"),
    *("radiopaedia_29_86491_1", "radiopaedia_36_86526_0", "radiopaedia_40_86625_0"),
)


def test_the_list_names_every_kept_back_scan_its_copies_and_its_slices(trees) -> None:
    names = read_held_out(LIST)
    for scan in trees.zenodo_names:
        copies = (scan, trees.kaggle_name(scan), f"Data-1_{trees.kaggle_name(scan)}_17")
        found = [is_held_out(new_case(copy, Path(f"{copy}.nii.gz"), None), names) for copy in copies]
        assert found == [scan in SCANS] * 3
    for check in ("P001.nii.gz", "normal001_ct_256.nii.gz", "chest_a.nii.gz", "P001/7.dcm", "lungmask_dicom/0.dcm"):
        assert is_held_out(new_case("x", Path(check), "x"), names)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_list_from_windows_or_macos_holds_out_the_same(form: str, tmp_path: Path) -> None:
    """A mark before the first name, ends of lines, and accents in either spelling."""
    text = "\ufeffMüller\r\n# Weiß\r\nscan#2 # the second\r\n"
    (tmp_path / "list.txt").write_bytes(unicodedata.normalize(form, text).encode())
    names = read_held_out(tmp_path / "list.txt")
    for other in ("NFC", "NFD"):
        patient = unicodedata.normalize(other, "Müller")
        assert is_held_out(new_case("a", Path("a.nii.gz"), patient), names)
        assert is_held_out(new_case("a", Path(f"{patient}.nii.gz"), None), names)
    found = [is_held_out(new_case("a", Path(f"{name}.nii.gz"), None), names) for name in ("scan#2", "scan", "Weiß")]
    assert found == [True, False, False]


def test_a_link_under_another_name_is_seen_through(tmp_path: Path) -> None:
    scan, link = tmp_path / "coronacases_003.nii.gz", tmp_path / "case_7.nii.gz"
    scan.touch()
    link.symlink_to(scan)
    assert is_held_out(new_case("case_7", link, "case_7"), read_held_out(LIST))


def test_a_set_that_holds_some_of_them_under_other_names_is_held_out_as_a_whole(trees) -> None:
    """Nine of the radiopaedia volumes are MedSeg part 2; which is which is not known."""
    datalist, _ = build_datalist([trees.medseg_part2()], folds=3, held_out=read_held_out(LIST))
    assert len(datalist["test"]) == 9
    assert datalist["training"] == []
    others, _ = build_datalist([trees.folder / "medseg2"], folds=3, held_out=["coronacases_003"])
    assert len(others["training"]) == 9


def test_every_training_looks_at_the_list() -> None:
    """Whatever is layered on train.yaml chooses its training cases with `held_out`."""
    chosen = []
    for path in sorted(CONFIGS.rglob("*.yaml")):
        for node in _mappings(yaml.safe_load(path.read_text())):
            if node.get("split") in ("training", "unlabeled") or "taught_cases" in str(node.get("_target_")):
                chosen.append(path.name)
                assert node.get("held_out") == "@given#held_out", path
    assert {"train.yaml", "multiclass.yaml", "fv_paspp_unet3d.yaml", "paired.yaml", "distil.yaml"} <= set(chosen)


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _mappings(part)


def test_prepare_keeps_them_out_of_training_and_unlabelled(trees, tmp_path: Path) -> None:
    sources = [trees.zenodo(), trees.semiseg()]
    datalist, _ = build_datalist(sources, folds=3, held_out=read_held_out(LIST))
    assert {case["name"] for case in datalist["test"]} == {*SCANS, "semiseg_test_0", "semiseg_test_1"}
    assert (len(datalist["training"]), len(datalist["unlabeled"])) == (12 + 6, 12)
    assert any("held out: 8 cases are in test, 8 unlabelled" in warning for warning in datalist["warnings"])
    write_prepared(datalist, tmp_path / "held", copy=False)
    assert len(select_cases(tmp_path / "held", "training", 0, held_out=str(LIST))) > 0
    write_prepared(build_datalist(sources, folds=3)[0], tmp_path / "all", copy=False)
    for split in ("training", "unlabeled"):
        with pytest.raises(UserError, match="8 cases are held out"):
            select_cases(tmp_path / "all", split, held_out=str(LIST))


def test_the_shipped_recipe_holds_them_out() -> None:
    assert chain("given#held_out", "presets/weights") == str(LIST)


@pytest.mark.parametrize("text", [None, "# nothing\n"])
def test_a_list_that_names_nothing_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=r"expected: .*one a line"):
        read_held_out(tmp_path / "list.txt")


@pytest.mark.real_data
@pytest.mark.skipif("LUNG_CT_DATA" not in os.environ, reason="LUNG_CT_DATA is not set")
def test_the_real_data_without_what_is_held_out(tmp_path: Path) -> None:
    folders = ("covid19_ct_seg", "covid19_ct_seg_radiopaedia", "covid19_ct_seg_masks_256", "covid_semiseg", "negatives")
    names = read_held_out(LIST)
    sources = [Path(os.environ["LUNG_CT_DATA"]) / folder for folder in folders]
    datalist, _ = build_datalist(sources, folds=3, held_out=names)
    assert not [case["name"] for case in all_cases(datalist) if is_held_out(case, names)]
    assert (len(datalist["training"]), len(datalist["unlabeled"])) == (7 + 3 + 50 + 4 + 300, 1184)
    assert [case["name"] for case in datalist["test"]] == ["tumour_philips_l"]
    write_prepared(datalist, tmp_path / "data", copy=False)
    for fold in range(3):
        own = [case for case in datalist["training"] if case["fold"] == fold]
        assert sum(case["name"].startswith("radiopaedia") for case in own) == 1
        assert sum(case["name"].startswith("coronacases") for case in own) in (2, 3)
        unlabelled = select_cases(tmp_path / "data", "unlabeled", fold, held_out=str(LIST))
        assert patients_of(unlabelled).isdisjoint(patients_of(own))
