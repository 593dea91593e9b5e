from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.errors import UserError
from scripts.transforms.hounsfield import parse_intensity
from scripts.transforms.intensity import IntensityGuardd, RandWindowd, SliceZScored, to_hounsfield


@pytest.mark.parametrize("setting", ["HU", "window", "window:1", "window:250,-1250", "window:a,b", "window:0,0", ""])
def test_parse_refuses_and_names_what_is_accepted(setting: str) -> None:
    with pytest.raises(UserError, match="expected: auto, hu, or window:LO,HI"):
        parse_intensity(setting)


def test_hu_stays_and_padding_becomes_air() -> None:
    hu = to_hounsfield(torch.tensor([-2048.0, -1024.0, -800.0, 40.0, 3000.0]))
    assert hu.tolist() == [-1024.0, -1024.0, -800.0, 40.0, 3000.0]


@pytest.mark.parametrize(("values", "found"), [([0.0, 0.5, 1.0], "0 to 1"), ([0.0, 128.0, 255.0], "0 to 255")])
def test_windowed_export_of_a_scan_is_refused(values: list[float], found: str) -> None:
    with pytest.raises(UserError, match=rf"ct\.nii: values from {found} look like a windowed export.*window:LO,HI"):
        to_hounsfield(torch.tensor(values), name="ct.nii")


def test_missing_intercept_is_refused() -> None:
    with pytest.raises(UserError, match=r"values from 0 to 4095 hold no air.*rescale intercept"):
        to_hounsfield(torch.tensor([0.0, 1000.0, 4095.0]))


@pytest.mark.parametrize("values", [[-1.0, 0.0, 1.0], [-2000.0, 0.0, 1000.0, 4095.0], [-150.0, 60.0]])
def test_values_without_air_are_refused_whatever_their_sign(values: list[float]) -> None:
    with pytest.raises(UserError, match="hold no air"):
        to_hounsfield(torch.tensor(values))


def test_hu_setting_takes_values_as_they_are() -> None:
    assert to_hounsfield(torch.tensor([0.0, 60.0]), "hu").tolist() == [0.0, 60.0]


@pytest.mark.parametrize(("values", "top"), [([0, 127.5, 255], 255), ([0, 0.5, 1], 1)])
def test_explicit_window_maps_back_linearly(values: list[float], top: float) -> None:
    hu = to_hounsfield(torch.tensor(values), "window:-1250,250")
    assert hu.tolist() == [-1250.0, -500.0, 250.0], top


def test_explicit_window_refuses_hu() -> None:
    with pytest.raises(UserError, match=r"values from -1000 to 40 do not come from a window"):
        to_hounsfield(torch.tensor([-1000.0, 40.0]), "window:-1250,250")


def test_picture_is_taken_for_the_default_window() -> None:
    assert to_hounsfield(torch.tensor([0.0, 255.0]), picture=True).tolist() == [-1250.0, 250.0]


def test_a_dark_picture_stays_dark() -> None:
    assert to_hounsfield(torch.tensor([0.0, 1.0]), picture=True)[1] == pytest.approx(-1250 + 1500 / 255)


def test_few_values_that_are_not_finite_become_air_and_many_are_refused() -> None:
    values = torch.full((1000,), -500.0)
    values[:3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    assert to_hounsfield(values)[:4].tolist() == [-1024.0, -1024.0, -1024.0, -500.0]
    values[:20] = float("nan")
    with pytest.raises(UserError, match=r"2\.0% of the values are NaN or infinite"):
        to_hounsfield(values)


def test_an_items_own_setting_goes_first() -> None:
    item = {"image": torch.tensor([0.0, 255.0]), "intensity": "window:-1400,100"}
    assert IntensityGuardd("image")(item)["image"].tolist() == [-1400.0, 100.0]


def test_z_score_is_per_slice_with_population_deviation() -> None:
    rng = np.random.default_rng(0)
    volume = rng.normal(3.0, 2.0, (1, 6, 5, 4)).astype(np.float32)
    scored = SliceZScored("image")({"image": torch.from_numpy(volume)})["image"].numpy()
    for z in range(4):
        expected = (volume[0, :, :, z] - volume[0, :, :, z].mean()) / (volume[0, :, :, z].std(ddof=0) + 1e-8)
        np.testing.assert_allclose(scored[0, :, :, z], expected, atol=1e-5)
    single = SliceZScored("image")({"image": torch.from_numpy(volume[..., 2])})["image"].numpy()
    np.testing.assert_array_equal(single, scored[..., 2])


def test_z_score_of_a_constant_slice_is_zero() -> None:
    assert SliceZScored("image")({"image": torch.full((1, 4, 4), 0.3)})["image"].abs().max() == 0


def test_window_scales_and_clips() -> None:
    windowed = RandWindowd("image", (-1250, 250))({"image": torch.tensor([-2000.0, -1250.0, -500.0, 250.0, 900.0])})
    assert windowed["image"].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_window_jitter_is_random_bounded_and_repeatable() -> None:
    def levels(seed: int) -> list[float]:
        transform = RandWindowd("image", (-1000.0, 0.0), jitter=0.1)
        transform.set_random_state(seed=seed)
        return transform({"image": torch.tensor([-500.0])})["image"].tolist()

    drawn = [levels(seed)[0] for seed in range(50)]
    assert levels(3) == levels(3)
    assert len(set(drawn)) == 50
    # The middle of a window whose bounds move by at most 100 of 1000 HU lies within 0.375 to 0.625.
    assert 0.37 < min(drawn) < 0.48
    assert 0.52 < max(drawn) < 0.63


def test_window_jitter_that_could_turn_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected: 0 <= jitter < 0\.5"):
        RandWindowd("image", jitter=0.5)
