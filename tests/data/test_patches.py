"""Patches of volumes: which ones, from where, and that a run repeats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.data.datalist import select_cases
from scripts.data.patches import PatchDataset, VolumeDataset
from scripts.errors import UserError
from scripts.transforms.preprocessing import Preprocessing
from tests.chains import chain, network_grid, network_input

MakeDataset = Callable[..., Path]
PATCH = (16, 32, 4)
INPUT = network_input(z_score=False)


def patches(cases: list[Any], lung_only: bool = False, **settings: Any) -> PatchDataset:
    arguments = {"patch_size": PATCH, "patches_per_volume": 6, **settings}
    return PatchDataset(cases, network_grid(size=48, lung_only=lung_only), INPUT, **arguments)


def add_lungs(folder: Path) -> np.ndarray:
    """Gives every case of a data set the same lung mask."""
    datalist = json.loads((folder / "datalist.json").read_text())
    first = nib.load(folder / datalist["training"][0]["image"])
    lung = np.zeros(first.shape, np.uint8)
    lung[6:34, 4:30] = 1
    nib.save(nib.Nifti1Image(lung, first.affine), folder / "lung.nii.gz")
    for case in datalist["training"]:
        case["lung"] = "lung.nii.gz"
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return lung


def equal(first: PatchDataset, second: PatchDataset) -> bool:
    return all(torch.equal(first[i][key], second[i][key]) for i in range(len(first)) for key in ("image", "label"))


def test_volumes_are_what_evaluation_and_inference_see(make_dataset: MakeDataset) -> None:
    folder = make_dataset(cases=2)
    add_lungs(folder)
    cases = select_cases(folder, "all")
    volumes = VolumeDataset(cases, network_grid(size=48, lung_only=True), INPUT)
    assert (len(volumes), volumes.slices) == (2, 12)
    for volume, case in zip((volumes[0], volumes[1]), cases, strict=True):
        expected = Preprocessing(size=48, z_score=False, lung_only=True)(dict(case))
        assert torch.equal(volume["image"], expected["image"].as_tensor())
        assert torch.equal(volume["label"], expected["label"].as_tensor())


def test_a_patch_is_a_part_of_its_volume(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=2), "all")
    dataset, volumes = patches(cases), VolumeDataset(cases, network_grid(size=48), INPUT)
    assert len(dataset) == 12
    for index in range(12):
        patch, volume = dataset[index], volumes[index // 6]
        windows = volume["image"][0].unfold(0, 16, 1).unfold(1, 32, 1).unfold(2, 4, 1)
        same = (windows == patch["image"][0]).flatten(3).all(dim=3)
        assert same.sum() == 1
        x, y, z = (int(where) for where in same.nonzero()[0])
        assert torch.equal(patch["label"][0], volume["label"][0, x : x + 16, y : y + 32, z : z + 4])


def test_half_of_the_patches_lie_around_infection(make_dataset: MakeDataset) -> None:
    """The share of infected voxels in the volume is far below;
    at a border a patch is moved inwards."""
    dataset = patches(
        select_cases(make_dataset(cases=1, folds=1, shape=(40, 36, 16)), "all"),
        patch_size=(16, 16, 4),
        patches_per_volume=200,
    )
    infected = [bool(dataset[index]["label"][0, 8, 8, 2]) for index in range(200)]  # the voxel a crop lies around
    assert 0.4 < np.mean(infected) < 0.6
    assert (dataset._padded[0]["label"] > 0).float().mean() < 0.1


def test_epochs_and_seeds_differ_and_repeat(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=2), "all")
    first, again, other = patches(cases), patches(cases), patches(cases, seed=1)
    for dataset in (first, again, other):
        dataset.set_epoch(3)
    backwards = [again[i]["image"] for i in reversed(range(len(again)))][::-1]
    assert all(torch.equal(first[i]["image"], backwards[i]) for i in range(len(first)))
    assert not equal(first, other)
    again.set_epoch(4)
    assert not equal(first, again)
    again.set_epoch(3)
    assert equal(first, again)


def test_workers_do_not_change_what_is_served(make_dataset: MakeDataset) -> None:
    dataset = patches(select_cases(make_dataset(cases=2), "all"))
    loaders = [torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=workers) for workers in (0, 2)]
    for alone, together in zip(*loaders, strict=True):
        assert torch.equal(alone["image"], together["image"])


def test_small_volumes_are_padded_with_what_is_no_lung(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=1, folds=1), "all")
    patch = patches(cases, patch_size=(64, 64, 10), patches_per_volume=1)[0]
    volume = VolumeDataset(cases, network_grid(size=48), INPUT)[0]
    for key in ("image", "label"):
        assert patch[key].shape == (1, 64, 64, 10)
        assert torch.equal(patch[key][:, 8:56, 8:56, 2:8], volume[key])
        assert patch[key].sum() == pytest.approx(volume[key].sum().item(), rel=1e-5)


def test_patches_of_lungs_only(make_dataset: MakeDataset) -> None:
    folder = make_dataset(cases=1, folds=1)
    lung = add_lungs(folder)
    cases = select_cases(folder, "all")
    dataset = patches(cases, lung_only=True, patch_size=(48, 48, 6), patches_per_volume=1)
    rows = np.floor((np.arange(48) + 0.5) * 40 / 48).astype(int)
    columns = np.floor((np.arange(48) + 0.5) * 36 / 48).astype(int)
    inside = torch.from_numpy(lung[np.ix_(rows, columns)] > 0)
    image = dataset[0]["image"][0]
    assert not image[~inside].any()
    assert (image[inside] > 0).all()
    centres = dataset._padded[0]["clean_voxels"]  # patches lie around lungs, not around what was taken out
    assert inside.movedim(-1, 0).flatten()[centres].all()


def test_disk_cache_serves_the_same_and_notices_another_lung_mask(make_dataset: MakeDataset, tmp_path: Path) -> None:
    folder = make_dataset(cases=1, folds=1)
    lung = add_lungs(folder)
    cases, cache = select_cases(folder, "all"), str(tmp_path / "cache")
    memory = patches(cases, lung_only=True)
    for _ in range(2):
        assert equal(memory, patches(cases, lung_only=True, cache_dir=cache))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert not equal(memory, patches(cases, cache_dir=cache))
    lung[20:] = 0
    nib.save(nib.Nifti1Image(lung, nib.load(cases[0]["image"]).affine), folder / "lung.nii.gz")
    assert not equal(memory, patches(cases, lung_only=True, cache_dir=cache))


@pytest.mark.parametrize("size", [(20, 32, 4), (32, 20, 4), (32, 32), (32, 32, 0), 32, "32,32,4"])
def test_a_patch_that_the_networks_cannot_take_is_refused(size: Any, make_dataset: MakeDataset) -> None:
    with pytest.raises(UserError, match="expected: columns and rows that are multiples of 16, and slices"):
        patches(select_cases(make_dataset(cases=1, folds=1), "all"), patch_size=size)


def test_slices_with_gaps_are_no_volume(make_dataset: MakeDataset) -> None:
    (case,) = select_cases(make_dataset(cases=1, folds=1), "all")
    VolumeDataset([{**case, "slices": [3, 1, 2]}], network_grid(size=48), INPUT)
    with pytest.raises(UserError, match="3 slices with gaps between them"):
        VolumeDataset([{**case, "slices": [1, 2, 4]}], network_grid(size=48), INPUT)


def test_patches_at_the_scans_own_resolution(make_dataset: MakeDataset) -> None:
    """Slices of 40 x 36 pixels stay so; a patch is cut out of HU that nothing has resampled."""
    (case,) = select_cases(make_dataset(cases=1, folds=1), "all")
    grid = network_grid(size=-1)
    volume = VolumeDataset([case], grid, INPUT)[0]
    stored = nib.load(case["image"])
    hu = nib.as_closest_canonical(stored).get_fdata()[::-1, ::-1]
    expected = torch.from_numpy(np.clip((hu + 1250) / 1500, 0, 1).astype(np.float32))
    torch.testing.assert_close(volume["image"][0], expected)
    assert volume["label"].shape == volume["image"].shape == (1, 40, 36, 6)
    dataset = PatchDataset([case], grid, INPUT, patch_size=PATCH)
    patch = dataset[0]["image"][0]
    windows = volume["image"][0].unfold(0, 16, 1).unfold(1, 32, 1).unfold(2, 4, 1)
    assert (windows == patch).flatten(3).all(dim=3).sum() == 1


def test_lungs_are_the_second_target_of_patches_and_volumes(make_dataset: MakeDataset, tmp_path: Path) -> None:
    folder = make_dataset(cases=2)
    lung = add_lungs(folder)
    first, second = select_cases(folder, "all")
    second.pop("lung")
    grid = chain("network_grid", "networks/fv_paspp_unet3d", "lungs", spatial_size=-1)
    volumes = VolumeDataset([first, second], grid, INPUT, cache_dir=str(tmp_path / "cache"))
    plain = VolumeDataset([first, second], network_grid(size=-1), INPUT)
    for volume, other in zip((volumes[0], volumes[1]), (plain[0], plain[1]), strict=True):
        assert torch.equal(volume["image"], other["image"])
        assert torch.equal(volume["label"][:1], other["label"])
    assert volumes[0]["label"][1].sum() == np.count_nonzero(lung)
    assert (volumes[1]["label"][1] == -1).all()
    patch = PatchDataset([first, second], grid, INPUT, patch_size=(48, 48, 8))[0]
    assert patch["image"].shape == (1, 48, 48, 8)
    assert patch["label"].shape == (2, 48, 48, 8)
    assert patch["label"][1].sum() == np.count_nonzero(lung)
    with pytest.raises(UserError, match="none of 1 volumes has lungs"):
        VolumeDataset([second], grid, INPUT)


def test_a_number_of_patches_that_is_none_is_refused(make_dataset: MakeDataset) -> None:
    for wrong in (0, 1.5, "many"):
        with pytest.raises(UserError, match=f"patches_per_volume is {wrong!r}; expected: a whole number from 1"):
            patches(select_cases(make_dataset(cases=1, folds=1), "all"), patches_per_volume=wrong)
