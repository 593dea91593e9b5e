"""Every layout recognises its miniature tree and pairs what belongs together."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from scripts.data.datalist import select_cases
from scripts.data.layouts.base import new_case
from scripts.data.layouts.build import build_datalist
from scripts.data.layouts.patients import patient_of_scan, patient_of_slice, zenodo_name
from scripts.data.layouts.registry import LAYOUTS, recognise
from scripts.data.layouts.zenodo import _complete
from scripts.errors import UserError
from scripts.io.reading import read_label

RADIOPAEDIA_PATIENTS = {f"radiopaedia_{case}" for case in (4, 7, 10, 14, 27, 29, 36, 40)}


def build(folder: Path, **options):
    return build_datalist([folder], **{"folds": 2, **options})[0]


def by_name(cases):
    return {case["name"]: case for case in cases}


def test_the_two_scans_of_a_radiopaedia_case_are_one_patient(trees):
    patients = {patient_of_scan(name) for name in trees.zenodo_names}
    assert patients == RADIOPAEDIA_PATIENTS | {f"coronacases_{number:03d}" for number in range(1, 11)}
    assert patient_of_scan("radiopaedia_4_85506_1") != patient_of_scan("radiopaedia_40_86625_0")


def test_copies_and_slices_have_the_names_and_patients_of_zenodo(trees):
    for name in trees.zenodo_names:
        copy = trees.kaggle_name(name)
        assert zenodo_name(copy) == name
        for slice_name in (f"Data-1_{copy}_1", f"Data-1_{copy}_117"):
            assert zenodo_name(slice_name) == name
            assert patient_of_slice(slice_name) == patient_of_scan(name)


@pytest.mark.parametrize("stem", ["0", "49", "slice_003", "case_10_2"])
def test_a_picture_whose_name_tells_nothing_has_no_patient(stem):
    assert patient_of_slice(stem) is None


def test_zenodo_takes_the_infection_mask_before_the_combined_one(trees):
    root = trees.zenodo(masks=("Infection", "Lung", "Lung_and_Infection"))
    cases = by_name(build(root)["training"])
    assert set(cases) == set(trees.zenodo_names)
    case = cases["radiopaedia_10_85902_3"]
    assert case["label"] == str(root / "Infection_Mask" / "radiopaedia_10_85902_3.nii.gz")
    assert case["lung"] == str(root / "Lung_Mask" / "radiopaedia_10_85902_3.nii.gz")
    assert case["patient"] == "radiopaedia_10"
    assert case["intensity"] == "window:-1350,150"
    assert cases["coronacases_004"]["intensity"] == "hu"
    assert all("label_codes" not in case for case in cases.values())


def test_a_radiopaedia_volume_that_holds_hu_is_read_as_hu(trees):
    root = trees.zenodo(("radiopaedia_4_85506_1", "radiopaedia_7_85703_0"))
    trees.ct(root / "COVID-19-CT-Seg_20cases" / "radiopaedia_7_85703_0.nii.gz")
    cases = by_name(build(root)["training"])
    assert cases["radiopaedia_7_85703_0"]["intensity"] == "hu"
    assert cases["radiopaedia_4_85506_1"]["intensity"] == "window:-1350,150"


def test_of_the_combined_mask_only_code_3_is_infection(trees):
    root = trees.zenodo(masks=("Lung_and_Infection",))
    datalist, facts = build_datalist([root], folds=2)
    assert all(case["label_codes"] == [3] for case in datalist["training"])
    label = trees.volume(root / "Lung_and_Infection_Mask" / "coronacases_001.nii.gz", (1, 2))
    _, without = build_datalist([root], folds=2)
    assert facts.infected[str(label)].tolist() == [False, True, False, False]
    assert not without.infected[str(label)].any()


def test_zenodo_folders_unzipped_into_folders_of_their_own(trees):
    root = trees.zenodo(("coronacases_001", "coronacases_002"))
    for folder in ("COVID-19-CT-Seg_20cases", "Infection_Mask"):
        (root / folder).rename(root / "moved")
        (root / folder).mkdir()
        (root / "moved").rename(root / folder / folder)
    assert len(build(root)["training"]) == 2


def test_a_phantom_data_set_says_so_and_its_intensity_is_left_open(trees):
    root = trees.zenodo(("phantom_001", "phantom_002"))
    (root / "phantom.json").write_text("{}")
    datalist = build(root)
    assert datalist["synthetic"]
    assert any("phantom" in warning for warning in datalist["warnings"])
    assert all("intensity" not in case for case in datalist["training"])
    assert not build(trees.zenodo(root="real"))["synthetic"]


@pytest.mark.parametrize("nested", [False, True])
def test_kaggle_pairs_through_its_table(trees, nested):
    root = trees.kaggle(nested=nested)
    cases = by_name(build(root)["training"])
    assert set(cases) == set(trees.zenodo_names)
    case = cases["radiopaedia_29_86491_1"]
    assert Path(case["image"]).name == "radiopaedia_org_covid-19-pneumonia-29_86491_1-dcm.nii"
    assert Path(case["image"]).is_file()
    assert Path(case["label"]).name == "radiopaedia_29_86491_1.nii"
    assert "infection_mask" in Path(case["label"]).parts
    assert "lung_mask" in Path(case["lung"]).parts
    assert case["patient"] == "radiopaedia_29"


@pytest.mark.parametrize(("masks", "used"), [(("Infection",), "Lung_Mask_256"), (("Infection", "Lung"), "Lung_Mask")])
def test_finer_lungs_stand_in_for_lungs_that_cases_lack(trees, masks, used):
    names = ("coronacases_001", "coronacases_002")
    for name in names:
        trees.volume(trees.finer() / "Lung_Mask_256" / f"{name}.nii.gz", (1, 255))
    listed, _ = build_datalist([trees.zenodo(names, masks=masks), trees.folder / "finer"], folds=2)
    assert {Path(case["lung"]).parent.name for case in listed["training"]} == {used}


def test_kaggle_follows_the_table_and_not_the_names(trees):
    root = trees.kaggle(("coronacases_001", "coronacases_002"))
    (root / "infection_mask" / "coronacases_001.nii").rename(root / "infection_mask" / "odd.nii")
    table = (root / "metadata.csv").read_text().replace("/infection_mask/coronacases_001", "/infection_mask/odd")
    (root / "metadata.csv").write_text(table)
    assert Path(by_name(build(root)["training"])["coronacases_001"]["label"]).name == "odd.nii"


def test_medseg_part1_is_a_stack_whose_slices_go_to_different_folds(trees):
    root = trees.medseg_part1(slices=20)
    datalist = build(root, folds=5)
    slices = [index for case in datalist["training"] for index in case["slices"]]
    assert sorted(slices) == list(range(20))
    assert sorted(case["fold"] for case in datalist["training"]) == [0, 1, 2, 3, 4]
    assert {case["image"] for case in datalist["training"]} == {str(root / "tr_im.nii.gz")}
    assert all(case["patient"] is None for case in datalist["training"])
    assert [(case["image"], case["slices"]) for case in datalist["unlabeled"]] == [
        (str(root / "val_im.nii.gz"), [0, 1, 2])
    ]
    assert any("patients unknown" in warning for warning in datalist["warnings"])


def test_medseg_part2_has_a_patient_a_volume(trees):
    cases = build(trees.medseg_part2())["training"]
    assert len({case["patient"] for case in cases}) == 9
    assert all(Path(case["image"]).name == Path(case["lung"]).name for case in cases)


def test_mosmed_trains_on_the_masked_studies(trees):
    datalist = build(trees.mosmed())
    assert [case["name"] for case in datalist["training"]] == ["study_0256", "study_0257", "study_0258"]
    assert all(case["label"].endswith(f"{case['name']}_mask.nii.gz") for case in datalist["training"])
    assert [case["name"] for case in datalist["unlabeled"]] == ["study_0254", "study_0255", "study_0259"]


def test_uestc_trains_on_the_expert_part_and_drops_nothing(trees):
    datalist = build(trees.uestc())
    assert {Path(case["image"]).parts[-3] for case in datalist["training"]} == {"part2"}
    assert {Path(case["image"]).parts[-3] for case in datalist["unlabeled"]} == {"part1"}
    assert all("label" not in case for case in datalist["unlabeled"])
    assert all(case["intensity"] == "window:-1400,100" for case in datalist["training"] + datalist["unlabeled"])
    assert any("part1" in warning for warning in datalist["warnings"])


def test_uestc_part1_trains_when_it_is_the_source(trees):
    datalist = build(trees.uestc() / "part1")
    assert {Path(case["label"]).parts[-3] for case in datalist["training"]} == {"part1"}
    assert any("non-expert" in warning for warning in datalist["warnings"])
    merged, _ = build_datalist([trees.uestc() / "part1", trees.uestc() / "part2"], folds=2)
    assert len(merged["training"]) == 6


@pytest.mark.parametrize(("below", "unlabeled"), [(".", 2), ("COVID-19-20_v2", 1)])
def test_covid_19_20_from_the_release_or_above(trees, below, unlabeled):
    datalist = build(trees.challenge() / below)
    cases = by_name(datalist["training"])
    assert set(cases) == {f"volume-covid19-A-{number}" for number in ("0003", "0011", "0011_1")}
    assert cases["volume-covid19-A-0011"]["patient"] == cases["volume-covid19-A-0011_1"]["patient"]
    assert cases["volume-covid19-A-0003"]["label"].endswith("volume-covid19-A-0003_seg.nii.gz")
    assert len(datalist["unlabeled"]) == unlabeled


def test_semiseg_lists_and_classes(trees):
    root = trees.semiseg() / "Dataset"
    datalist = build(root.parent)
    case = by_name(datalist["training"])["semiseg_train_3"]
    training = root / "TrainingSet"
    assert case["label"] == str(training / "LungInfection-Train/Doctor-label/GT/3.png")
    assert case["classes"] == str(training / "MultiClassInfection-Train/GT/3.png")
    assert case["prior"] == str(training / "MultiClassInfection-Train/Prior/3.png")
    assert case["patient"] is None
    assert set(np.unique(read_label(Path(case["classes"])))) == {0, 1, 2}  # palette indices, not colours
    assert [case["name"] for case in datalist["test"]] == ["semiseg_test_0", "semiseg_test_1"]
    assert "prior" not in datalist["test"][0]
    assert datalist["test"][1]["classes"].endswith("MultiClassInfection-Test/GT/1.png")
    assert len(datalist["unlabeled"]) == 20


SEMISEG_TRAIN = "Dataset/TrainingSet/LungInfection-Train"


def test_published_pseudo_labels_train_and_are_in_no_fold(trees):
    """The set of 1,650: labelled slices in folds, soft labels of the others beside them."""
    trees.semiseg()
    root = trees.pseudo(f"semiseg/{SEMISEG_TRAIN}")
    datalist, facts = build_datalist([trees.folder / "semiseg", root], folds=2)
    pseudo = [case for case in datalist["training"] if case.get("pseudo")]
    assert (len(datalist["training"]), len(pseudo)) == (26, 20)
    assert not {"0", "5"} & {case["name"] for case in datalist["unlabeled"]}  # else validation slices are learnt from
    assert len(datalist["unlabeled"]) == 20
    assert {case["fold"] for case in pseudo} == {None}
    assert {case["label_scale"] for case in pseudo} == {255}
    assert {case["patient"] for case in pseudo} == {patient_of_scan(name) for name in trees.zenodo_names}
    assert not any(Path(case["image"]).stem in map(str, range(6)) for case in pseudo)
    assert all(facts.infected[case["label"]].any() for case in pseudo)
    assert datalist["folds"] == 2
    assert any("20 labels were made by a network" in warning for warning in datalist["warnings"])
    alone = build(root)
    assert (len(alone["training"]), alone["folds"]) == (20, 0)


def test_pseudo_labels_of_validation_and_held_out_patients_train_nothing(trees, tmp_path):
    scans = ("coronacases_001", "coronacases_002", "coronacases_003", "coronacases_004")
    sources = [trees.zenodo(scans), trees.pseudo(scans=scans, labelled=0)]
    datalist, _ = build_datalist(sources, folds=3, held_out=["coronacases_003"])
    assert [case["name"] for case in datalist["test"]] == ["coronacases_003"]
    assert "1 cases are in test, 1 unlabelled ones were left out" in " ".join(datalist["warnings"])
    out = tmp_path / "out"
    out.mkdir()
    (out / "datalist.json").write_text(json.dumps(datalist))
    (validation,) = select_cases(out, "validation", 0)
    training = select_cases(out, "training", 0)
    assert validation["patient"] not in {case["patient"] for case in training}
    assert sorted(case["patient"] for case in training if case.get("pseudo")) == sorted(
        {*scans} - {"coronacases_003", validation["patient"]}
    )
    assert (
        len(select_cases(out, "training", 0, pseudo=False)) == len(select_cases(out, "training", 0, pseudo=True)) == 2
    )


def test_patients_of_unlabelled_slices_are_those_of_zenodo(trees):
    slices = {case["patient"] for case in build(trees.semiseg())["unlabeled"]}
    volumes = {case["patient"] for case in build(trees.zenodo())["training"]}
    assert slices == volumes


def test_the_paper_s_val_is_a_test_set(trees):
    datalist = build(trees.paper())
    assert len(datalist["training"]) == 6
    assert len(datalist["test"]) == 2
    assert all("/mask/" in case["label"] for case in datalist["training"] + datalist["test"])
    assert all(case["edge"] == case["label"].replace("/mask/", "/mask_/") for case in datalist["training"])


def test_published_edges_are_paired_with_their_images(trees):
    root = trees.semiseg() / "Dataset/TrainingSet/LungInfection-Train/Doctor-label"
    assert by_name(build(trees.folder / "semiseg")["training"])["semiseg_train_3"]["edge"] == str(root / "Edge/3.png")
    (root / "Edge/3.png").unlink()
    with pytest.raises(UserError, match=r"3\.jpg: no edge '3' in "):
        build(trees.folder / "semiseg")
    trees.picture(root / "Edge/3.png", (7,))
    with pytest.raises(UserError, match=r"3\.png: label values 7"):
        build(trees.folder / "semiseg")


def test_the_tree_of_cares_unet(trees):
    root = trees.cares()
    datalist = build(root)
    assert [case["name"] for case in datalist["test"]] == ["test_0", "test_1"]
    assert {case["label"] for case in datalist["training"]} == {str(root / f"Train-Mask/{n}.png") for n in range(6)}
    found = {case["name"]: case["patient"] for case in datalist["unlabeled"]}
    assert found == {"unlabeled_0": None, "unlabeled_Data-1_coronacases_org_001_10": "coronacases_001"}
    (root / "Test-Mask" / "1.png").unlink()
    with pytest.raises(UserError, match=r"Test-Image/1\.png: no label '1'"):
        build(root)


def test_generic_takes_pictures_and_volumes(trees):
    root = trees.generic(("a", "coronacases_001"))
    trees.picture(root / "images" / "slice.jpg", (9,))
    trees.picture(root / "labels" / "slice.png", (255,))
    cases = by_name(build(root)["training"])
    assert {name: case["patient"] for name, case in cases.items()} == {
        "a": "a",
        "coronacases_001": "coronacases_001",
        "slice": None,
    }


BUILDERS = {
    "zenodo_3757476": "zenodo",
    "zenodo_3757476_finer": "finer",
    "kaggle_covid19_ct_scans": "kaggle",
    "medseg_part1": "medseg_part1",
    "medseg_part2": "medseg_part2",
    "mosmeddata": "mosmed",
    "uestc_covid_19": "uestc",
    "covid_19_20_v2": "challenge",
    "covid_semiseg": "semiseg",
    "covid_semiseg_pseudo": "pseudo",
    "resunet_png": "paper",
    "cares_png": "cares",
    "generic": "generic",
    "negatives": "negatives",
}


def test_every_layout_is_tested():
    assert set(BUILDERS) == {layout.name for layout in LAYOUTS}


@pytest.mark.parametrize("name", BUILDERS)
def test_each_tree_is_recognised_as_itself_from_above_and_nested(trees, name, tmp_path):
    root = getattr(trees, BUILDERS[name])()
    layout, found = recognise(root)
    assert layout.name == name
    (tmp_path / "__MACOSX").mkdir()
    assert recognise(tmp_path) == (layout, found)
    nested = tmp_path.with_name(tmp_path.name + "_above") / "inside"
    nested.mkdir(parents=True)
    root.rename(nested / root.name)
    assert recognise(nested.parent)[0] is layout


def test_an_unknown_tree_is_told_what_is_accepted(tmp_path):
    (tmp_path / "scans").mkdir()
    with pytest.raises(UserError) as error:
        recognise(tmp_path)
    assert all(f"{layout.name}: {layout.tree}" in str(error.value) for layout in LAYOUTS)
    with pytest.raises(UserError, match="no such folder"):
        recognise(tmp_path / "absent")


def test_a_tree_that_matches_several_names_them(trees):
    root = trees.medseg_part1()
    trees.medseg_part2().joinpath("rp_im").rename(root / "rp_im")
    (trees.folder / "medseg2" / "rp_msk").rename(root / "rp_msk")
    with pytest.raises(UserError, match=r"several.*medseg_part1 in .*medseg_part2 in "):
        recognise(root)
    trees.uestc()
    with pytest.raises(UserError, match=r"several.*uestc_covid_19 in .*medseg_part1 in "):
        recognise(trees.folder)


def test_merging_warns_of_scans_that_are_in_both(trees):
    sources = [trees.zenodo(), trees.medseg_part1(), trees.medseg_part2()]
    datalist, _ = build_datalist(sources, folds=5)
    assert len({case["image"] for case in datalist["training"]}) == 20 + 1 + 9
    assert datalist["layout"] == "zenodo_3757476+medseg_part1+medseg_part2"
    assert any("share radiopaedia" in warning for warning in datalist["warnings"])
    apart, _ = build_datalist(sources[1:], folds=5)
    assert not any("share radiopaedia" in warning for warning in apart["warnings"])


def test_one_data_set_twice_is_refused(trees):
    with pytest.raises(UserError, match="duplicate case name 'coronacases_002'"):
        build_datalist([trees.zenodo(("coronacases_002",)), trees.kaggle(("coronacases_001", "coronacases_002"))], 2)


def test_finer_masks_join_the_cases_of_another_source(trees):
    sources = [trees.zenodo(("coronacases_001", "coronacases_002", "coronacases_004")), trees.finer()]
    cases = by_name(build_datalist(sources, folds=2)[0]["training"])
    assert cases["coronacases_001"]["finer"] == str(sources[1] / "Infection_Mask_256" / "coronacases_001.nii.gz")
    assert "finer" not in cases["coronacases_004"]
    with pytest.raises(UserError, match="no case 'coronacases_002' in any SOURCE"):
        build_datalist([trees.zenodo(("coronacases_001", "coronacases_004"), "fewer"), sources[1]], folds=2)


def test_a_second_annotator_is_found_beside_the_first(trees):
    root = trees.zenodo(("radiopaedia_4_85506_1", "radiopaedia_7_85703_0"))
    second = trees.volume(root / "MedSeg_GGO_Consolidation" / "radiopaedia_7_85703_0.nii.gz", (1, 2))
    cases = by_name(build(root)["training"])
    assert cases["radiopaedia_7_85703_0"]["second"] == cases["radiopaedia_7_85703_0"]["classes"] == str(second)
    assert "second" not in cases["radiopaedia_4_85506_1"]


def test_negatives_need_no_label_and_neighbours_share_a_fold(trees):
    datalist = build(trees.negatives(pictures=200))
    assert [case["name"] for case in datalist["test"]] == ["tumour_c"]
    assert all(case["lesion_free"] and "label" not in case for case in datalist["training"])
    folds = [case["fold"] for case in datalist["training"] if case["name"].startswith("negatives_")]
    assert [len(set(folds[start : start + 50])) for start in range(0, 200, 50)] == [1] * 4
    assert folds.count(0) == folds.count(1) == 100


needs_real_data = pytest.mark.skipif("LUNG_CT_DATA" not in os.environ, reason="LUNG_CT_DATA is not set")


@pytest.mark.real_data
@needs_real_data
def test_real_zenodo_volumes():
    datalist, facts = build_datalist([Path(os.environ["LUNG_CT_DATA"]) / "covid19_ct_seg"])
    assert {case["patient"] for case in datalist["training"]} == {
        f"coronacases_{number:03d}" for number in (1, 2, 4, 5, 7, 8, 10)
    }
    assert sum(facts.slices.values()) == 1912


@pytest.mark.real_data
@needs_real_data
def test_real_covid_semiseg():
    datalist, _ = build_datalist([Path(os.environ["LUNG_CT_DATA"]) / "covid_semiseg"])
    assert (len(datalist["training"]), len(datalist["unlabeled"])) == (50, 1600)
    assert all({"classes", "prior"} <= case.keys() for case in datalist["training"])
    patients = {case["patient"] for case in datalist["unlabeled"]}
    assert patients == RADIOPAEDIA_PATIENTS | {f"coronacases_{number:03d}" for number in range(1, 11)}


@pytest.mark.parametrize(
    ("name", "window"), [("radiopaedia_7_85703_0", "-1400,171"), ("radiopaedia_4_85506_1", "-1350,150")]
)
def test_windows_of_radiopaedia_volumes_are_those_that_were_measured(name, window):
    """Recovered from air, fat and muscle; [-1250, 250] puts lung about 100 HU too high."""
    case = _complete(new_case(name, Path(f"{name}.nii.gz"), None), False)
    assert case["intensity"] == f"window:{window}"
    assert "1250" not in case["intensity"]
