"""A label belongs to its image wherever cases are read: stored in any order,
refused elsewhere or of another size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from nibabel.affines import apply_affine
from PIL import Image

from scripts.data.datalist import describe, select_cases
from scripts.data.layouts.build import build_datalist
from scripts.data.slices import SliceDataset
from scripts.errors import UserError, find_user_error
from scripts.inference.calibration import calibrate
from scripts.research.workflows import run_workflow
from scripts.transforms.preprocessing import Preprocessing
from tests.chains import network_grid, training_input

MakeDataset = Callable[..., Path]
OBLIQUE = np.array([[-0.7, 0.02, 0.1, 90.0], [-0.02, -0.7, 0.2, 110.0], [0.0, 0.0, 5.0, -200.0], [0, 0, 0, 1.0]])
ORDERS = ("RAS", "SRA", "PIR", "ASL")


def centre_mm(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Where the marked voxels lie, RAS."""
    return apply_affine(affine, np.argwhere(values > 0.5)).mean(axis=0)


def store_labels(folder: Path, turned: Callable[..., nib.Nifti1Image], order: str) -> Path:
    """Stores the labels of a data set in another order of axes; the images stay."""
    for path in sorted((folder / "labels").iterdir()):
        image = turned(nib.load(path), order)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), path)
    return folder


def replace(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Writes a volume in the format of its name."""
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(values, affine), path)
        return
    image = sitk.GetImageFromArray(values.T)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("order", ORDERS)
def test_training_pairs_a_label_stored_in_another_order_voxel_by_voxel(order, make_scan, turned) -> None:
    image, label = make_scan(affine=OBLIQUE)
    stored = nib.load(label)
    case = {"name": "a", "image": str(image), "label": str(label)}
    serve = lambda: SliceDataset([case], network_grid(size=32), training_input(augment=True), seed=1)  # noqa: E731
    expected, grid = serve(), Preprocessing(size=32, label_grid="scan")(case)
    nib.save(turned(stored, order), label)
    assert nib.load(label).shape != stored.shape or not np.allclose(nib.load(label).affine, stored.affine)
    found, other = serve(), Preprocessing(size=32, label_grid="scan")(case)
    for key in ("image", "label"):
        assert all(torch.equal(one[key], two[key]) for one, two in zip(expected, found, strict=True))
        assert torch.equal(grid[key].as_tensor(), other[key].as_tensor())
    place = centre_mm(np.asarray(nib.load(label).dataobj), nib.load(label).affine)
    np.testing.assert_allclose(
        centre_mm(other["label"].numpy()[0], np.asarray(other["label"].affine)), place, atol=1e-3
    )


def test_evaluation_gives_the_same_figures_for_labels_in_another_order(
    make_dataset, make_checkpoint, turned, tmp_path
) -> None:
    folder, weights = make_dataset(cases=2), make_checkpoint(tmp_path / "model.pt", size=32)

    def tables(name: str) -> list[pd.DataFrame]:
        settings = {"dataset_dir": str(folder), "checkpoint": str(weights), "device": "cpu", "fold": 0}
        out = tmp_path / name
        run_workflow(["configs/train.yaml", "configs/evaluate.yaml"], output_dir=str(out), **settings)
        return [pd.read_csv(out / table) for table in ("metrics.csv", "slices.csv")]

    expected = tables("expected")
    assert 0 < expected[0]["dice"][0] < 1
    store_labels(folder, turned, "SRA")
    for one, other in zip(expected, tables("turned"), strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("order", ORDERS)
def test_prepare_takes_any_stored_order_and_counts_slices_of_the_image(order, trees, turned) -> None:
    root = trees.generic(("a", "b"))
    label = trees.volume(root / "labels" / "a.nii.gz", (1,))
    expected = build_datalist([root], folds=2)[1].infected[str(label)]
    nib.save(turned(nib.load(label), order), label)
    found = build_datalist([root], folds=2)[1].infected[str(label)]
    assert found.tolist() == expected.tolist() == [False, True, False, False]


def dataset_of(suffix: str, folder: Path) -> tuple[Path, Path]:
    """A data list by hand of two cases; the second's label may be broken."""
    cases = []
    for name in ("a", "b"):
        for kind, dtype in (("images", np.int16), ("labels", np.uint8)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            path = folder / kind / f"{name}{suffix}"
            if suffix == ".png":
                Image.fromarray(np.zeros((32, 36), np.uint8)).save(path)
            else:
                replace(path, np.zeros((36, 32, 6), dtype), OBLIQUE)
        paths = {"image": f"images/{name}{suffix}", "label": f"labels/{name}{suffix}"}
        cases.append({**paths, "name": name, "patient": name, "fold": len(cases)})
    (folder / "datalist.json").write_text(json.dumps({"training": cases, "test": [], "unlabeled": []}))
    return folder, folder / "labels" / f"b{suffix}"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".png"])
def test_a_list_by_hand_with_a_label_of_another_size_is_refused_with_both_files_and_sizes(suffix, tmp_path) -> None:
    folder, label = dataset_of(suffix, tmp_path)
    assert len(select_cases(folder, "all")) == 2
    if suffix == ".png":
        Image.fromarray(np.zeros((30, 36), np.uint8)).save(label)
    else:
        replace(label, np.zeros((36, 30, 6), np.uint8), OBLIQUE)
    with pytest.raises(UserError) as error:
        select_cases(folder, "all")
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"{label}: ")
    for part in (str(folder / "images" / label.name), "36 x 30", "36 x 32"):
        assert part in text
    assert len(select_cases(folder, "training", fold=1)) == 1  # the other label is good
    assert len(select_cases(folder, "all", masks=False)) == 2


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_list_by_hand_with_a_label_elsewhere_is_refused_with_both_affines(suffix, tmp_path) -> None:
    folder, label = dataset_of(suffix, tmp_path)
    shifted = OBLIQUE.copy()
    shifted[2, 3] += 30
    replace(label, np.zeros((36, 32, 6), np.uint8), shifted)
    with pytest.raises(UserError) as error:
        select_cases(folder, "validation", fold=1)
    assert f"{label}: lies up to 30 mm off its image" in str(error.value)
    assert "-170" in str(error.value)
    assert "-200" in str(error.value)


@pytest.mark.parametrize("key", ["classes", "prior", "lung"])
def test_every_mask_of_a_case_is_checked(key, tmp_path) -> None:
    folder, _ = dataset_of(".nii.gz", tmp_path)
    content = json.loads((folder / "datalist.json").read_text())
    replace(folder / "other.nii.gz", np.zeros((36, 32, 5), np.uint8), OBLIQUE)
    content["training"][1][key] = "other.nii.gz"
    (folder / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"other\.nii\.gz: has 36 x 32 x 5 voxels .* 36 x 32 x 6"):
        select_cases(folder, "all")


@pytest.mark.parametrize("suffix", [".nii.gz", ".png"])
def test_a_label_that_is_its_image_is_refused(suffix, tmp_path) -> None:
    """It has the right grid, and every voxel above 0 HU would be infection."""
    folder, label = dataset_of(suffix, tmp_path)
    label.unlink()
    label.symlink_to(folder / "images" / label.name)
    with pytest.raises(UserError) as error:
        select_cases(folder, "all")
    assert str(error.value) == f"{label}: both image and label of a case; expected: two files"


def test_every_offender_of_a_list_has_its_line(tmp_path) -> None:
    folder, label = dataset_of(".nii.gz", tmp_path)
    replace(label, np.zeros((36, 32, 5), np.uint8), OBLIQUE)
    label.with_name("a.nii.gz").write_bytes(b"no image")
    with pytest.raises(UserError, match="2 files do not belong to their images") as error:
        select_cases(folder, "all")
    assert [line.split(": ")[0] for line in str(error.value).split("\n  ")[1:]] == [
        str(label.with_name("a.nii.gz")),
        str(label),
    ]


def test_training_evaluation_and_calibrate_stop_before_they_start(make_dataset, make_checkpoint, tmp_path) -> None:
    folder = make_dataset(cases=2)
    weights = make_checkpoint(tmp_path / "model.pt", size=32, data=describe(folder, 0))
    label = folder / "labels" / "case_00.nii.gz"
    stored = nib.load(label)
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine @ np.diag([1, 1, 1.1, 1])), label)
    settings = {"dataset_dir": str(folder), "device": "cpu", "output_dir": str(tmp_path / "out")}
    starts: list[Callable[[], object]] = [
        lambda: run_workflow(["configs/train.yaml"], spatial_size=32, max_epochs=1, **settings),
        lambda: run_workflow(["configs/train.yaml", "configs/evaluate.yaml"], checkpoint=str(weights), **settings),
        lambda: calibrate(weights, str(folder), [], False, 4, torch.device("cpu")),
    ]
    for start in starts:
        with pytest.raises((UserError, RuntimeError)) as caught:
            start()
        assert f"{label}: lies up to 0.5 mm off its image" in str(find_user_error(caught.value))
        assert not list((tmp_path / "out").rglob("*.*"))


def test_an_item_that_no_list_has_checked_is_refused_as_well(make_scan) -> None:
    image, label = make_scan(affine=OBLIQUE)
    stored, shifted = nib.load(label), OBLIQUE.copy()
    shifted[0, 3] += 3
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), shifted), label)
    for preprocessing in (network_grid(size=32), Preprocessing(size=32, label_grid="scan")):
        with pytest.raises(RuntimeError) as caught:
            preprocessing({"image": str(image), "label": str(label)})
        assert f"{label}: lies up to 3 mm off its image" in str(find_user_error(caught.value))
