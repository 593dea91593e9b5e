from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from PIL import Image

from scripts.errors import UserError, find_user_error
from scripts.inference.metadata import completed_preprocessing
from scripts.transforms.geometry import scale_range
from scripts.transforms.preprocessing import Preprocessing
from scripts.transforms.slice_input import DEFAULTS
from tests.chains import CONFIGS, chain, network_grid, network_input, training_input

MakeScan = Callable[..., tuple[Path, Path]]
Turned = Callable[[nib.Nifti1Image, str], nib.Nifti1Image]


def test_what_metadata_leave_out_has_the_default_of_the_preprocessing() -> None:
    stated = {name: one.default for name, one in signature(Preprocessing).parameters.items()}
    assert stated == {**DEFAULTS, "label_grid": "network"}


@pytest.mark.parametrize(
    "steps",
    [
        {"size": 32},
        {"size": 48, "window": [-1000, 100], "field_of_view": "lungs", "z_score": False},
        {"size": 32, "lung_only": True, "intensity": "hu"},
    ],
)
def test_configs_and_metadata_give_the_same_tensor(steps: dict[str, object], make_scan: MakeScan) -> None:
    image, label = (str(path) for path in make_scan())
    expected = Preprocessing(**steps, label_grid="scan")({"image": image, "label": label})  # type: ignore[arg-type]
    metadata = {"preprocessing": completed_preprocessing(steps)}

    inference = ConfigParser(ConfigParser.load_config_file(CONFIGS / "inference.yaml"))
    inference["checkpoint_metadata"] = metadata
    listed = inference.get_parsed_content("preprocessing")
    assert type(listed) is Compose  # MONAI Label takes its list of steps
    found = {"inference": listed({"image": image})}
    for grid in ("scan", "network"):
        evaluation = chain("preprocessing", "evaluate", checkpoint_metadata=metadata, metric_grid=grid)
        found[f"evaluation, {grid}"] = evaluation({"image": image, "label": label})
    for name, item in found.items():
        assert torch.equal(item["image"].as_tensor(), expected["image"].as_tensor()), name
    assert torch.equal(found["evaluation, scan"]["label"].as_tensor(), expected["label"].as_tensor())

    ids = {"spatial_size" if key == "size" else key: value for key, value in steps.items()}
    kept = chain("network_grid", **ids)({"image": image, "label": label})
    assert torch.equal(kept["label"].as_tensor(), found["evaluation, network"]["label"].as_tensor())
    for part in ("train", "validate"):
        transform = chain(f"{part}#preprocessing", **ids)
        for z in range(kept["image"].shape[-1]):
            seen = transform({"image": kept["image"][..., z], "label": kept["label"][..., z]})["image"]
            assert torch.equal(torch.as_tensor(seen), expected["image"].as_tensor()[..., z]), part


def test_every_stored_orientation_gives_the_same_tensor(
    axes: str, make_scan: MakeScan, turned: Turned, tmp_path: Path
) -> None:
    scan = dict(zip(("image", "label"), map(str, make_scan(affine=np.diag([-0.7, -0.7, 5.0, 1.0]))), strict=True))
    expected = Preprocessing(size=32)(dict(scan))
    stored = {key: str(tmp_path / f"{key}.nii") for key in scan}
    for key, path in scan.items():
        nib.save(turned(nib.load(path), axes), stored[key])
    found = Preprocessing(size=32)(stored)
    assert torch.equal(found["image"].as_tensor(), expected["image"].as_tensor())
    assert torch.equal(found["label"].as_tensor(), expected["label"].as_tensor())
    assert expected["label"].sum() > 0


def test_resize_is_bilinear_without_anti_aliasing_and_leaves_slices_alone(make_scan: MakeScan, resize_weights) -> None:
    image, _ = make_scan()
    hu = np.maximum(nib.load(image).get_fdata(dtype=np.float32), -1024)
    grid = network_grid(size=64)({"image": str(image)})["image"].numpy()[0]
    expected = np.einsum("ia,jb,abz->ijz", resize_weights(64, 40), resize_weights(64, 36), hu)
    np.testing.assert_allclose(grid, expected, atol=0.01)


def test_label_is_resized_to_the_nearest_voxel(make_scan: MakeScan) -> None:
    image, label = make_scan()
    found = network_grid(size=64)({"image": str(image), "label": str(label)})["label"].numpy()[0]
    truth = nib.load(label).get_fdata()
    rows = np.floor((np.arange(64) + 0.5) * 40 / 64).astype(int)
    columns = np.floor((np.arange(64) + 0.5) * 36 / 64).astype(int)
    np.testing.assert_array_equal(found, truth[np.ix_(rows, columns)])


def test_window_and_z_score_follow_each_other() -> None:
    hu = torch.linspace(-1400, 400, 64).reshape(1, 8, 8)
    found = network_input(window=[-1250, 250])({"image": hu})["image"].numpy()
    windowed = np.clip((hu.numpy() + 1250) / 1500, 0, 1)
    np.testing.assert_allclose(found, (windowed - windowed.mean()) / (windowed.std() + 1e-8), rtol=1e-5, atol=1e-6)


def test_a_picture_and_a_volume_reach_the_network_the_same_way_round(tmp_path: Path) -> None:
    # What a radiological display shows: column = x to the patient's left, row = y to posterior.
    pixels = np.random.default_rng(1).integers(40, 256, (20, 30), dtype=np.uint8)  # above air, which is clamped
    Image.fromarray(pixels).save(tmp_path / "slice.png")
    hu = -1250 + pixels.T.astype(np.float64) / 255 * 1500
    nib.save(nib.Nifti1Image(hu[..., None], np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / "slice.nii.gz")
    picture = Preprocessing(size=32)({"image": str(tmp_path / "slice.png")})["image"]
    volume = Preprocessing(size=32, intensity="hu", window=(-1250, 250))({"image": str(tmp_path / "slice.nii.gz")})
    assert picture.shape == (1, 32, 32, 1)
    torch.testing.assert_close(picture.as_tensor(), volume["image"].as_tensor(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["RGB", "LA", "P", "1"])
def test_pictures_of_any_mode_are_read_as_grey(mode: str, tmp_path: Path) -> None:
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert(mode).save(tmp_path / "a.png")
    assert Preprocessing(size=16)({"image": str(tmp_path / "a.png")})["image"].shape == (1, 16, 16, 1)


def test_a_palette_label_is_read_by_its_indices(tmp_path: Path) -> None:
    codes = np.zeros((16, 16), np.uint8)
    codes[4:8, 4:8], codes[10:12, 10:12] = 1, 2
    label = Image.fromarray(codes, mode="P")
    label.putpalette([0, 0, 0, 0, 0, 0, 255, 0, 0])  # index 1 is painted black like the background
    label.save(tmp_path / "label.png")
    Image.fromarray(codes).save(tmp_path / "image.png")
    item = {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "label.png")}
    assert Preprocessing(size=16)(item)["label"].sum() == 20


def test_a_picture_of_16_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 3000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(RuntimeError) as caught:
        Preprocessing(size=16)({"image": str(tmp_path / "deep.png")})
    assert "more than 8 bits a pixel" in str(find_user_error(caught.value))


def test_sizes_that_cannot_be_halved_four_times_are_refused() -> None:
    with pytest.raises(UserError, match="spatial_size is 250; expected: multiples of 16"):
        Preprocessing(size=250)


def test_a_4d_scan_is_refused_by_name_and_size(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((8, 8, 4, 3), -500, np.int16), np.eye(4)), tmp_path / "four.nii.gz")
    with pytest.raises(RuntimeError) as caught:
        Preprocessing(size=16)({"image": str(tmp_path / "four.nii.gz")})
    assert "four.nii.gz: 3 volumes (8 x 8 x 4 x 3)" in str(find_user_error(caught.value))


def test_augmentation_changes_slices_keeps_masks_binary_and_edges_last(make_scan: MakeScan) -> None:
    image, label = make_scan()
    grid = network_grid(size=32)({"image": str(image), "label": str(label)})
    transform = training_input(augment=True)
    changed = 0
    for seed in range(12):
        transform.set_random_state(seed=seed)
        item = transform({"image": grid["image"][..., 2].as_tensor(), "label": grid["label"][..., 2].as_tensor()})
        mask, edge = torch.as_tensor(item["label"])
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        eroded = 1 - torch.nn.functional.max_pool2d(1 - mask[None], 3, 1, 1)[0]
        assert torch.equal(edge, mask - eroded)  # the edge of the mask as it came out
        assert abs(float(item["image"].mean())) < 1e-5
        changed += not torch.equal(mask, grid["label"][0, ..., 2].as_tensor())
    assert changed >= 10


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("scan.nii.gz", lambda whole: whole[: len(whole) // 2], "ended before the end-of-stream marker"),
        ("scan.nii.gz", lambda _: b"not an image", "no NIfTI header"),
        ("scan.nii", lambda _: b"", "an empty file"),
        ("slice.png", lambda _: b"not an image", "cannot identify image file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(
    name: str, damage: Callable[[bytes], bytes], reason: str, make_scan, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(damage(make_scan()[0].read_bytes()))
    with pytest.raises(RuntimeError) as caught:
        Preprocessing(size=32)({"image": str(path)})
    mistake = find_user_error(caught.value)
    assert mistake is not None
    assert str(mistake).startswith(f"{path}: ")
    assert reason in str(mistake)
    assert "\n" not in str(mistake)


def test_a_scan_for_the_network_of_classes(make_scan: MakeScan, tmp_path: Path) -> None:
    image, label = make_scan()
    scan = nib.load(label)
    codes = np.asarray(scan.dataobj).copy()
    codes[24:] *= 2
    levels = np.random.default_rng(0).integers(0, 256, codes.shape, dtype=np.uint8)
    for name, array in (("classes", codes), ("prior", levels)):
        nib.save(nib.Nifti1Image(array, scan.affine), tmp_path / f"{name}.nii.gz")
    item = {"image": str(image), "label": str(tmp_path / "classes.nii.gz"), "prior": str(tmp_path / "prior.nii.gz")}
    settings = {"spatial_size": 64, "window": [-1250, 250], "intensity": "auto", "z_score": True}
    settings |= {"lung_only": False, "field_of_view": "scan"}
    on_scan, on_network = (
        chain("preprocessing", "evaluate", "evaluate_multiclass", metric_grid=grid, **settings)
        for grid in ("scan", "network")
    )
    found = on_scan({**item, "prior_scale": 255})
    assert "prior" not in found
    assert torch.equal(
        found["image"][:1].as_tensor(), Preprocessing(size=64)({"image": str(image)})["image"].as_tensor()
    )
    rows = np.floor((np.arange(64) + 0.5) * 40 / 64).astype(int)
    columns = np.floor((np.arange(64) + 0.5) * 36 / 64).astype(int)
    np.testing.assert_allclose(found["image"][1].numpy(), levels[np.ix_(rows, columns)] / 255, rtol=1e-6)
    np.testing.assert_array_equal(found["label"].numpy(), [codes == number for number in range(3)])
    small = on_network({**item, "prior_scale": 255})["label"].numpy()
    np.testing.assert_array_equal(small.argmax(0), codes[np.ix_(rows, columns)])


def test_augmentation_moves_image_prior_and_classes_together() -> None:
    label = torch.zeros(1, 48, 48)
    label[0, 8:20, 10:30], label[0, 20:30, 10:30] = 1, 2
    item = {"image": torch.where(label > 0, 0.0, -1000.0), "prior": (label > 0).float() / 2, "label": label}
    transform = training_input("multiclass", augment=True)
    moved = 0
    for seed in range(12):
        transform.set_random_state(seed=seed)
        found = transform(dict(item))
        classes = torch.as_tensor(found["label"])
        assert torch.equal(classes.sum(0), torch.ones(48, 48))
        image, prior = torch.as_tensor(found["image"])
        assert torch.equal(prior * 2, 1 - classes[0])
        # The image is interpolated, blurred and noisy: along the border of the lesion it may
        # differ.
        middle = (image.max() + image.min()) / 2
        assert ((image > middle) == (prior > 0)).float().mean() > 0.95
        moved += not torch.equal(classes.argmax(0), label[0].long())
    assert moved >= 10


def extents(transform: Compose, seed: int) -> tuple[int, int]:
    """Columns and rows that a disc of 9 pixels in the middle of 64 takes up after augmentation."""
    steps = torch.arange(64) - 32
    disc = (steps[:, None] ** 2 + steps**2 <= 16).float()[None]
    transform.set_random_state(seed=seed)
    mask = torch.as_tensor(transform({"image": 300 * disc - 1000, "label": disc})["label"])[0] > 0
    return int(mask.any(dim=1).sum()), int(mask.any(dim=0).sum())


def test_augmentation_scales_and_shifts_both_axes() -> None:
    transform = training_input(augment=True, augment_scale=(0.5, 0.5))
    sizes = {extents(transform, seed) for seed in range(12)}
    assert all(abs(x - y) <= 2 for x, y in sizes), sizes  # a disc stays one
    assert {round(x / 9) for x, _ in sizes} == {1, 2}  # as it is, or from twice as close
    sizes = {extents(training_input(augment=True), seed) for seed in range(12)}
    assert len({x for x, _ in sizes}) > 1
    assert len({y for _, y in sizes}) > 1


@pytest.mark.parametrize("turns", [True, False])
def test_quarter_turns_can_be_left_out(turns: bool) -> None:
    bar = torch.zeros(1, 64, 64)
    bar[:, 20:44, 28:36] = 1
    transform = training_input(augment=True, augment_turns=turns)
    lying = []
    for seed in range(16):
        transform.set_random_state(seed=seed)
        mask = torch.as_tensor(transform({"image": 300 * bar - 1000, "label": bar})["label"])[0] > 0
        lying.append(bool(mask.any(dim=1).sum() > mask.any(dim=0).sum()))
    assert all(lying) is not turns


@pytest.mark.parametrize("scale", [(1.2, 0.8), (0, 1), 0.8, (0.8,), "wide"])
def test_scales_that_make_no_sense_are_refused(scale: object) -> None:
    with pytest.raises(UserError, match=r"augment_scale is .*; expected: .LOW, HIGH."):
        scale_range(scale)  # type: ignore[arg-type]
