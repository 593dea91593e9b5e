from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import get_track_meta

from scripts.data.datalist import select_cases
from scripts.data.phantom.scan import make_phantom
from scripts.data.slices import SliceDataset, transformed
from scripts.errors import UserError, find_user_error
from scripts.transforms.items import UNKNOWN
from tests.chains import network_grid, training_input

MakeDataset = Callable[..., Path]


def equal(first: SliceDataset, second: SliceDataset) -> bool:
    pairs = zip((first[i] for i in range(len(first))), (second[i] for i in range(len(second))), strict=True)
    return all(torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"]) for a, b in pairs)


def test_serves_every_slice_of_every_case_in_hu(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=2), "all")
    dataset = SliceDataset(cases, network_grid(size=32))
    assert len(dataset) == 12
    volume = network_grid(size=32)(dict(cases[1]))
    for z in range(6):
        assert torch.equal(dataset[6 + z]["image"], volume["image"][..., z].as_tensor())
        assert torch.equal(dataset[6 + z]["label"], volume["label"][..., z].as_tensor())


def test_epochs_differ_and_repeat(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=2), "all")
    make = lambda seed: SliceDataset(cases, network_grid(size=32), training_input(augment=True), seed=seed)  # noqa: E731
    first, again, other_seed = make(0), make(0), make(1)
    for dataset in (first, again, other_seed):
        dataset.set_epoch(3)
    reversed_access = [again[i]["image"] for i in reversed(range(len(again)))][::-1]
    assert all(torch.equal(first[i]["image"], reversed_access[i]) for i in range(len(first)))
    assert not equal(first, other_seed)
    again.set_epoch(4)
    assert not equal(first, again)


def test_workers_do_not_change_what_is_served(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=2), "all")
    dataset = SliceDataset(cases, network_grid(size=32), training_input(augment=True))
    loaders = [torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=workers) for workers in (0, 2)]
    for alone, together in zip(*loaders, strict=True):
        assert torch.equal(alone["image"], together["image"])


def test_sampling(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=2, shape=(40, 36, 10)), "all")  # 8 of 10 slices have lesion
    infected = SliceDataset(cases, network_grid(size=32), sampling="infected")
    assert len(infected) == 16
    assert all(infected[i]["label"].any() for i in range(16))
    balanced = SliceDataset(cases, network_grid(size=32), sampling="balanced")
    assert len(balanced) == 16 + 4
    assert sum(not balanced[i]["label"].any() for i in range(20)) == 4
    with pytest.raises(UserError, match="expected: all, infected, balanced"):
        SliceDataset(cases, network_grid(size=32), sampling="some")


def test_balanced_sampling_draws_anew_every_epoch(make_dataset: MakeDataset) -> None:
    folder = make_dataset(cases=1, folds=1, shape=(40, 36, 30))
    label = folder / "labels" / "case_00.nii.gz"
    mask = nib.load(label)
    array = np.asarray(mask.dataobj).copy()
    array[..., 5:] = 0
    nib.save(nib.Nifti1Image(array, mask.affine), label)
    dataset = SliceDataset(select_cases(folder, "all"), network_grid(size=32), sampling="balanced")
    drawn = []
    for epoch in range(6):
        dataset.set_epoch(epoch)
        drawn.append(tuple(float(dataset[i]["image"].mean()) for i in range(len(dataset))))
    assert len(set(drawn)) > 3
    dataset.set_epoch(2)
    assert drawn[2] == tuple(float(dataset[i]["image"].mean()) for i in range(len(dataset)))


@pytest.mark.parametrize("share", [1 / 3, 0.5])
def test_pictures_make_up_their_share_each_time_another_way(make_dataset: MakeDataset, share: float) -> None:
    volume = select_cases(make_dataset(cases=1, shape=(40, 36, 10)), "all")[0]
    pictures = [{**volume, "slices": [z]} for z in (3, 4, 5)]
    dataset = SliceDataset(
        [volume, *pictures], network_grid(size=32), training_input(augment=True), picture_share=share, seed=4
    )
    expected = round(share / (1 - share) * 10)
    seen = []
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        assert len(dataset) == 10 + expected
        served = np.bincount([dataset._table[one][0] for one in dataset._served], minlength=4)
        assert served[0] == 10
        assert served[1:].max() - served[1:].min() <= 1
        seen += [dataset[i]["image"].numpy().tobytes() for i in range(len(dataset))]
    assert len(set(seen)) == len(seen)  # no slice comes twice with the same augmentation


def test_clean_pictures_leave_balanced_epochs_of_one_length(make_dataset: MakeDataset) -> None:
    volume = select_cases(make_dataset(cases=1, shape=(40, 36, 40)), "all")[0]
    mask = nib.load(volume["label"])
    array = np.asarray(mask.dataobj).copy()
    array[..., :12] = 0
    nib.save(nib.Nifti1Image(array, mask.affine), volume["label"])
    pictures = [{**volume, "slices": [z]} for z in (*range(12), *range(20, 24))]
    cases = [{**volume, "slices": [*range(12), 30, 31]}, *pictures]
    dataset = SliceDataset(cases, network_grid(size=32), sampling="balanced", picture_share=0.8)
    lengths, drawn = set(), set()
    for epoch in range(8):
        dataset.set_epoch(epoch)
        lengths.add(len(dataset))
        drawn.add(tuple(dataset._served))
    # 6 infected slices, 6 of the 24 clean ones, half of them pictures: 5 of the volume and four
    # times as many pictures
    assert lengths == {5 + 20}
    assert len(drawn) > 4


def test_an_epoch_may_serve_a_part_that_is_drawn_anew(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=2), "all")
    whole = SliceDataset(cases, network_grid(size=32))
    part = SliceDataset(cases, network_grid(size=32), slices_per_epoch=5)
    every = {whole[i]["image"].numpy().tobytes() for i in range(len(whole))}
    seen = []
    for epoch in range(8):
        part.set_epoch(epoch)
        assert len(part) == 5
        seen.append(frozenset(part[i]["image"].numpy().tobytes() for i in range(5)))
        assert len(seen[-1]) == 5
    assert len(set(seen)) > 4
    assert set().union(*seen) == every
    assert equal(whole, SliceDataset(cases, network_grid(size=32), slices_per_epoch=1000))
    for wrong in (0, 20.5, "many"):
        with pytest.raises(UserError, match="slices_per_epoch is"):
            SliceDataset(cases, network_grid(size=32), slices_per_epoch=wrong)  # type: ignore[arg-type]


def test_picture_share_changes_nothing_without_both_kinds_and_refuses_other_numbers(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=2), "all")
    plain = SliceDataset(cases, network_grid(size=32), training_input(augment=True))
    assert equal(plain, SliceDataset(cases, network_grid(size=32), training_input(augment=True), picture_share=0.5))
    for share in (0, 1, -0.2, "half"):
        with pytest.raises(UserError, match="expected: more than 0, less than 1, or null"):
            SliceDataset(cases, network_grid(size=32), picture_share=share)


def test_sampling_that_leaves_nothing_is_an_error(make_dataset: MakeDataset) -> None:
    folder = make_dataset(cases=1)
    cases = select_cases(folder, "all")
    cases[0].pop("label")
    with pytest.raises(UserError, match="sampling 'infected' leaves no slice"):
        SliceDataset(cases, network_grid(size=32), sampling="infected")


def test_disk_cache_serves_the_same_and_notices_changes(make_dataset: MakeDataset, tmp_path: Path) -> None:
    folder = make_dataset(cases=2)
    cases = select_cases(folder, "all")
    cache = tmp_path / "cache"
    memory = SliceDataset(cases, network_grid(size=32))
    assert equal(memory, SliceDataset(cases, network_grid(size=32), cache_dir=str(cache)))
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    assert len(files) == 4
    assert equal(memory, SliceDataset(cases, network_grid(size=32), cache_dir=str(cache)))
    assert files == {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}  # found again, not rewritten
    SliceDataset(cases, network_grid(size=48), cache_dir=str(cache))
    assert len(list(cache.iterdir())) == 4
    image = nib.load(cases[0]["image"])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 7, image.affine), cases[0]["image"])
    changed = SliceDataset(cases, network_grid(size=32), cache_dir=str(cache))
    assert not torch.equal(changed[0]["image"], memory[0]["image"])


@pytest.mark.parametrize("axes", ["LPS", "LPI"])
def test_chosen_slices_count_the_stored_axis(axes: str, make_dataset: MakeDataset, turned) -> None:
    folder = make_dataset(cases=1)
    case = dict(select_cases(folder, "all")[0])
    stored = {}
    for key in ("image", "label"):
        image = turned(nib.load(case[key]), axes)
        nib.save(image, case[key])
        stored[key] = image.get_fdata()
    dataset = SliceDataset([{**case, "slices": [0, 1]}], network_grid(size=48))
    means = sorted(float(dataset[i]["label"].sum()) > 0 for i in range(2))
    assert means == sorted(bool(stored["label"][..., z].any()) for z in (0, 1))
    whole = SliceDataset([case], network_grid(size=48))
    expected = (0, 1) if axes == "LPS" else (4, 5)
    assert all(torch.equal(dataset[i]["image"], whole[z]["image"]) for i, z in enumerate(expected))


def test_a_label_of_another_depth_is_refused_with_both_files(make_dataset: MakeDataset) -> None:
    folder = make_dataset(cases=1)
    case = dict(select_cases(folder, "all")[0])
    label = nib.load(case["label"])
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj)[..., :4], label.affine), case["label"])
    with pytest.raises(RuntimeError) as caught:
        SliceDataset([case], network_grid(size=32))
    text = str(find_user_error(caught.value))
    assert re.match(r".*labels.case_00\.nii\.gz: has 40 x 36 x 4 voxels.*images.case_00.nii.gz, 40 x 36 x 6$", text)


def test_monai_label_may_hand_over_plain_pairs(make_dataset: MakeDataset) -> None:
    folder = make_dataset(cases=1)
    pair = json.loads((folder / "datalist.json").read_text())["training"][0]
    data = [{"image": str(folder / pair["image"]), "label": str(folder / pair["label"])}]
    assert len(SliceDataset(data, network_grid(size=32)).data) == 1
    assert len(SliceDataset([], network_grid(size=32))) == 0


def test_slices_beyond_the_field_of_view_are_not_served(tmp_path: Path) -> None:
    phantom = make_phantom(1, shape=(128, 128, 56), spacing=(2.75, 2.75, 5.0))
    image = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), image)
    case = {"image": str(image), "name": "phantom"}
    grid = network_grid(size=32, field_of_view="lungs")
    item = grid(dict(case))
    low, high, depth = item["box"][2]
    assert 0 < low < high <= depth == 56
    dataset = SliceDataset([case], grid)
    assert len(dataset) == high - low
    for index in (0, high - low - 1):
        assert torch.equal(dataset[index]["image"], item["image"][..., low + index].as_tensor())
    down = nib.aff2axcodes(phantom.affine)[2] == "I"
    stored = [55 - z if down else z for z in (int(low) - 1, int(low), int(low) + 1)]
    assert len(SliceDataset([{**case, "slices": stored}], grid)) == 2  # of three


def test_what_is_served_is_plain_and_what_others_track_stays_tracked() -> None:
    item = {"image": torch.full((1, 16, 16), -500.0), "label": torch.zeros(1, 16, 16)}
    served = transformed(item, training_input(augment=True), seed=3)
    assert {type(value) for value in served.values()} == {torch.Tensor}
    with pytest.raises(RuntimeError):
        transformed({"label": torch.zeros(1, 16, 16)}, training_input(), seed=3)
    assert get_track_meta()


def test_a_mix_serves_slices_of_cases_without_label_too(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=2, shape=(40, 36, 10)), "all")  # 8 of 10 slices have lesion
    free = {key: value for key, value in cases[1].items() if key != "label"} | {"lesion_free": True}
    mix = {"infected": 2, "lesion_free": 1}
    dataset = SliceDataset([cases[0], free], network_grid(size=32), slice_mix=mix, slices_per_epoch=30)
    assert sum(bool(dataset[index]["label"].any()) for index in range(len(dataset))) == 20
    assert len(dataset) == 30
    with pytest.raises(UserError, match="slice_mix is set without slices_per_epoch"):
        SliceDataset(cases, network_grid(size=32), slice_mix=mix)


def test_disputed_voxels_reach_the_network_as_unknown(make_dataset: MakeDataset) -> None:
    folder = make_dataset(cases=1, folds=1)
    label = folder / "labels" / "case_00.nii.gz"
    mask = nib.load(label)
    other = folder / "second.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros_like(np.asarray(mask.dataobj)), mask.affine), other)
    listed = json.loads((folder / "datalist.json").read_text())
    listed["training"][0]["second"] = other.name
    (folder / "datalist.json").write_text(json.dumps(listed))
    for more, found in ((False, {0.0, 1.0}), (True, {0.0, UNKNOWN})):
        dataset = SliceDataset(select_cases(folder, "training", more_labels=more), network_grid(size=32))
        served = torch.stack([dataset[index]["label"] for index in range(len(dataset))])
        assert set(served.unique().tolist()) == found


def test_a_slice_comes_with_its_neighbours_where_they_are_thin(make_dataset: MakeDataset) -> None:
    cases = select_cases(make_dataset(cases=1, shape=(40, 36, 30)), "all")
    keep = lambda item: item  # noqa: E731
    dataset = SliceDataset(cases, network_grid(size=32), keep, slab_mm=40.0)  # 30 slices: 10 mm each
    assert dataset[0]["slab"].shape == (5, 32, 32)
    assert torch.equal(dataset[10]["slab"][2:3], dataset[10]["image"])
    assert torch.equal(dataset[10]["slab"][3:4], dataset[11]["image"])
    assert torch.equal(dataset[0]["slab"][0], dataset[0]["slab"][1])
    assert "slab" not in SliceDataset(cases, network_grid(size=32), keep, slab_mm=8.0)[10]


def test_slices_beside_a_gap_are_no_neighbours(make_dataset: MakeDataset) -> None:
    """A teacher leaves out slices that it is not sure of, a split by slice those of other parts."""
    (case,) = select_cases(make_dataset(cases=1, shape=(40, 36, 30)), "all")
    keep = lambda item: item  # noqa: E731
    for chosen, shown in (([*range(25)], True), ([*range(10), *range(15, 30)], False)):
        dataset = SliceDataset([{**case, "slices": chosen}], network_grid(size=32), keep, slab_mm=40.0)
        assert ["slab" in dataset[index] for index in range(25)] == [shown] * 25
