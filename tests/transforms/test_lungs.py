"""Lung-only preprocessing and the box around the lungs: what the network sees,
and how its answer comes back."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.anatomy.field_of_view import is_cropped
from scripts.data.phantom.scan import make_phantom
from scripts.errors import UserError, find_user_error
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.io.reading import read_scan
from scripts.transforms import lungs
from scripts.transforms.lungs import CropToBoxd, FindBoxd, FindLungsd, LungsOnlyd
from scripts.transforms.postprocessing import ScanProbabilities
from scripts.transforms.preprocessing import Preprocessing
from scripts.transforms.slice_input import OUTSIDE_HU
from tests.chains import chain, network_grid, network_input

MakeScan = Callable[..., tuple[Path, Path]]


@pytest.fixture
def scan(make_scan: MakeScan, tmp_path: Path, turned) -> dict[str, str]:
    """A scan of 40 x 36 x 6 voxels with its label and a lung mask,
    the mask stored in another order of axes."""
    image, label = make_scan()
    lung = np.zeros((40, 36, 6), np.uint8)
    lung[10:20, 4:32, 1:5], lung[20:30, 4:32, 1:5] = 1, 2
    path = tmp_path / "lung.nii.gz"
    nib.save(turned(nib.Nifti1Image(lung, nib.load(image).affine), "SRA"), path)
    return {"image": str(image), "label": str(label), "lung": str(path)}


def test_what_lies_outside_of_a_given_mask_is_taken_out(scan: dict[str, str]) -> None:
    whole = network_grid(size=64)(dict(scan))["image"].numpy()[0]
    found = network_grid(size=64, lung_only=True)(dict(scan))
    rows = np.floor((np.arange(64) + 0.5) * 40 / 64).astype(int)
    columns = np.floor((np.arange(64) + 0.5) * 36 / 64).astype(int)
    lung = np.zeros((40, 36, 6), bool)
    lung[10:30, 4:32, 1:5] = True
    lung = lung[np.ix_(rows, columns)]
    np.testing.assert_array_equal(found["image"].numpy()[0], np.where(lung, whole, OUTSIDE_HU))
    assert "lung" not in found
    assert found["label"].sum() > 0


def test_the_network_sees_zero_there_and_the_window_elsewhere(scan: dict[str, str]) -> None:
    inside = network_grid(size=64, lung_only=True)(dict(scan))["image"].as_tensor() > OUTSIDE_HU
    hu = network_grid(size=64)(dict(scan))["image"].as_tensor()
    seen = Preprocessing(size=64, z_score=False, lung_only=True)(dict(scan))["image"].as_tensor()
    assert not seen[~inside].any()
    torch.testing.assert_close(seen[inside], ((hu + 1250) / 1500).clamp(0, 1)[inside])
    grid = network_grid(size=64, lung_only=True)(dict(scan))
    assert torch.equal(network_input(z_score=False)(grid)["image"].as_tensor(), seen)


def test_probabilities_return_to_the_scans_grid(scan: dict[str, str], turned) -> None:
    nib.save(turned(nib.load(scan["image"]), "IRP"), scan["image"])
    preprocessing = Preprocessing(size=32, z_score=False, lung_only=True, label_grid="scan")
    item = preprocessing({key: scan[key] for key in ("image", "label")})
    logits = MetaTensor(torch.where(item["image"].as_tensor() > 0.5, 20.0, -20.0), meta=item["image"].meta)
    back = ScanProbabilities(preprocessing)({**item, "pred": logits})["pred"]
    assert back.shape[1:] == nib.load(scan["image"]).shape
    np.testing.assert_allclose(back.affine, nib.load(scan["image"]).affine, atol=1e-9)


@pytest.mark.parametrize(("fault", "message"), [("depth", "has 40 x 36 x 5 voxels"), ("empty", "is empty")])
def test_a_mask_that_does_not_fit_is_refused(fault: str, message: str, scan: dict[str, str]) -> None:
    mask = np.ones((40, 36, 5), np.uint8) if fault == "depth" else np.zeros((40, 36, 6), np.uint8)
    nib.save(nib.Nifti1Image(mask, nib.load(scan["image"]).affine), scan["lung"])
    with pytest.raises(RuntimeError) as caught:
        network_grid(size=32, lung_only=True)(dict(scan))
    assert message in str(find_user_error(caught.value))


def test_what_is_almost_zero_in_a_mask_is_no_lung(scan: dict[str, str]) -> None:
    """Resampling leaves it, and slopes; labels are read so too."""
    exact = network_grid(size=32, lung_only=True)(dict(scan))["image"]
    stored = nib.load(scan["lung"])
    nib.save(nib.Nifti1Image((stored.get_fdata() + 1e-6).astype(np.float32), stored.affine), scan["lung"])
    assert torch.equal(network_grid(size=32, lung_only=True)(dict(scan))["image"].as_tensor(), exact.as_tensor())


def test_without_a_mask_the_lungs_are_found() -> None:
    phantom = make_phantom(1, shape=(160, 128, 60), spacing=(2.2, 2.2, 4.5))
    affine = np.diag([-2.2, -2.2, 4.5, 1.0])
    image = MetaTensor(torch.from_numpy(phantom.image.astype(np.float32))[None], affine=affine)
    item = LungsOnlyd("image", "lung")(FindLungsd("image", "lung")({"image": image}))
    kept = item["image"].numpy()[0] > OUTSIDE_HU
    truth = phantom.lungs > 0
    assert 2 * (kept & truth).sum() / (kept.sum() + truth.sum()) > 0.93
    np.testing.assert_array_equal(item["image"].numpy()[0][kept], phantom.image[kept])
    assert kept[phantom.infection > 0].mean() > 0.95


def test_where_no_lungs_are_found_the_whole_scan_is_used(scan: dict[str, str], caplog) -> None:
    del scan["lung"]
    with caplog.at_level(logging.WARNING):
        found = network_grid(size=32, lung_only="true")(dict(scan))["image"]
    assert torch.equal(found.as_tensor(), network_grid(size=32)(dict(scan))["image"].as_tensor())
    assert "the whole scan is used" in caplog.text


BOX = np.array([(7, 31, 40), (4, 36, 36), (2, 5, 6)])


def test_a_crop_keeps_every_voxel_where_it_lies_in_mm(scan: dict[str, str]) -> None:
    whole = Preprocessing(size=32)(dict(scan))["image"]
    box = np.array([(3, 20, 32), (5, 32, 32), (1, 4, 6)])
    image = CropToBoxd("image", "box")({"image": whole, "box": box})["image"]
    assert torch.equal(image.as_tensor(), whole.as_tensor()[:, 3:20, 5:32])  # slices keep their number
    corner = whole.affine @ torch.tensor([3.0, 5.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(image.affine[:, 3], corner)


def test_the_inverse_of_a_crop_is_zero_outside_of_the_box_and_beyond_its_slices() -> None:
    image = MetaTensor(torch.rand(1, 40, 36, 6) + 1, affine=np.diag([-2.0, -2.0, 5.0, 1.0]))
    crop = CropToBoxd("image", "box")
    back = crop.inverse(crop({"image": image, "box": BOX}))["image"]
    expected = torch.zeros(1, 40, 36, 6)
    expected[:, 7:31, 4:36, 2:5] = image.as_tensor()[:, 7:31, 4:36, 2:5]
    assert torch.equal(back.as_tensor(), expected)
    torch.testing.assert_close(back.affine, image.affine)


def test_another_grid_is_not_cropped(scan: dict[str, str]) -> None:
    label = MetaTensor(torch.zeros(1, 40, 36, 5), meta={"filename_or_obj": "label.nii"})
    with pytest.raises(Exception, match=r"label\.nii: 40 x 36 x 5 voxels, its image has 40 x 36 x 6"):
        CropToBoxd("label", "box")({"label": label, "box": BOX})


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory, turned) -> dict[str, str]:
    """A synthetic chest in an order of axes of its own, with its label."""
    phantom = make_phantom(1, shape=(128, 128, 56), spacing=(2.75, 2.75, 5.0))
    folder = tmp_path_factory.mktemp("chest")
    paths = {"image": str(folder / "image.nii.gz"), "label": str(folder / "label.nii.gz")}
    for path, array in zip(paths.values(), (phantom.image, phantom.infection), strict=True):
        nib.save(turned(nib.Nifti1Image(array, phantom.affine), "SAL"), path)
    return paths


def test_the_grid_around_the_lungs_shows_image_and_label_alike(chest: dict[str, str]) -> None:
    whole, near = (network_grid(size=128, field_of_view=field)(dict(chest)) for field in ("scan", "lungs"))
    (left, right, _), (front, back, _), _ = near["box"]
    assert (right - left) * (back - front) < 0.6 * 128 * 128
    for key, mode in (("image", "bilinear"), ("label", "nearest-exact")):
        part = whole[key].as_tensor()[0, left:right, front:back].movedim(-1, 0)[:, None]  # 128 is the scan's own size
        expected = torch.nn.functional.interpolate(part, size=(128, 128), mode=mode)[:, 0].movedim(0, -1)
        torch.testing.assert_close(near[key].as_tensor()[0], expected, atol=1e-3, rtol=0)
    stretched = near["label"].sum() * (right - left) * (back - front) / 128**2
    assert stretched == pytest.approx(float(whole["label"].sum()), rel=0.02)  # no lesion is lost


def test_what_is_found_in_the_box_comes_back_to_its_place(chest: dict[str, str]) -> None:
    preprocessing = Preprocessing(size=128, label_grid="scan", field_of_view="lungs")
    item = preprocessing(dict(chest))
    near = Preprocessing(size=128, field_of_view="lungs")(dict(chest))["label"].as_tensor()
    logits = MetaTensor(torch.where(near > 0.5, 20.0, -20.0), meta=item["image"].meta)
    found = ScanProbabilities(preprocessing)({**item, "pred": logits})["pred"]
    stored = nib.load(chest["label"])
    np.testing.assert_allclose(found.affine, stored.affine, atol=1e-9)
    mask, truth = found.numpy()[0] > 0.5, np.asarray(stored.dataobj) > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.97
    assert found.min() == 0  # outside of the box; sigmoid(-20) elsewhere


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([-1.34765625, -1.34765625, 1.5, 1.0]),
        np.array([[0, 0, -1.41, 0], [0, 1.41, 0, 0], [1.5, 0, 0, 0], [0, 0, 0, 1.0]]),
        np.array([[-0.9, 0, 0, 0], [0, -0.9, 1.8, 0], [0, 0, 5.0, 0], [0, 0, 0, 1.0]]),  # a tilted gantry
    ],
    ids=["axial", "sagittal", "tilted"],
)
def test_voxel_and_size_are_those_that_segment_takes(affine: np.ndarray, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-1000, 400, (16, 17, 18)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    item = {"image": str(tmp_path / "scan.nii")}
    for step in chain("image_grid", field_of_view="lungs").flatten().transforms:
        if isinstance(step, FindBoxd):
            break
        item = step(item)
    hu, spacing = lungs._hounsfield(item["image"])
    np.testing.assert_array_equal(hu, HounsfieldSlices(scan).rounded())
    assert spacing == scan.spacing_lps


def test_the_box_of_the_same_voxels_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FindBoxd, "_known", OrderedDict())
    phantom = make_phantom(1, shape=(96, 80, 40), spacing=(3.6, 3.6, 6.0))
    affine = np.diag([3.6, 3.6, 6.0, 1.0])
    find = FindBoxd("image", "box")
    first = find({"image": MetaTensor(torch.from_numpy(phantom.image)[None], affine=affine)})["box"]
    with monkeypatch.context() as patch:
        patch.setattr("scripts.transforms.lungs.segment_tissue", lambda *_: pytest.fail("searched again"))
        again = find({"image": MetaTensor(torch.from_numpy(phantom.image.copy())[None], affine=affine)})["box"]
    np.testing.assert_array_equal(first, again)
    turned = torch.from_numpy(phantom.image[:, :, 10:].copy())[None]
    assert find({"image": MetaTensor(turned, affine=affine)})["box"].tolist() != first.tolist()
    coarser = np.diag([3.8, 3.6, 6.0, 1.0])  # the same voxels of another size are another scan
    find({"image": MetaTensor(torch.from_numpy(phantom.image)[None], affine=coarser)})
    assert len(FindBoxd._known) == 3


def test_a_picture_is_shown_whole() -> None:
    picture = MetaTensor(torch.zeros(1, 20, 30, 1), meta={"picture": True})
    assert FindBoxd("image", "box")({"image": picture})["box"].tolist() == [[0, 20, 20], [0, 30, 30], [0, 1, 1]]


def test_a_field_of_view_that_is_unknown_is_refused() -> None:
    with pytest.raises(UserError, match="field_of_view is 'chest'; expected: scan, lungs"):
        is_cropped("chest")


def test_the_boxes_that_a_process_remembers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[float] = []

    def find(image: MetaTensor) -> None:
        FindBoxd("image", "box")({"image": image})

    def search(*_: object) -> tuple[slice, slice, slice]:
        searched.append(1)
        return slice(0, 1), slice(0, 1), slice(0, 1)

    monkeypatch.setattr(lungs, "find_box", search)
    monkeypatch.setattr(lungs, "_find_anatomy", lambda *_: (None, None))
    monkeypatch.setattr(lungs, "MOST_BOXES", 2)
    monkeypatch.setattr(FindBoxd, "_known", OrderedDict())
    volumes = [torch.full((1, 4, 4, 4), float(value)) for value in (1, 2, 3)]
    first, second, third = (MetaTensor(volume, affine=torch.eye(4)) for volume in volumes)
    for image in (first, second, first, third, first):  # the third one takes the place of the second
        find(image)
    assert (len(searched), len(FindBoxd._known)) == (3, 2)
    find(second)
    assert (len(searched), len(FindBoxd._known)) == (4, 2)
