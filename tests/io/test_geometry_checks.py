from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scripts.errors import UserError
from scripts.io.geometry_checks import check_extent, check_geometry
from scripts.io.grids import corner_distance
from scripts.io.volume import axial_axes

CHEST = (512, 512, 60)


def grid(x=(0.7, 0, 0), y=(0, 0.7, 0), z=(0, 0, 5), origin=(10, 20, 30)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3] = np.array([x, y, z, origin]).T
    return affine


def codes(*args, **kwargs) -> list[tuple[str, str]]:
    return [(note.code, note.kind) for note in check_geometry("scan.nii", *args, **kwargs)]


def test_a_plain_chest_has_no_findings():
    assert codes(CHEST, grid()) == []
    assert codes((512, 512, 40), grid(z=(0, 0, 8))) == []  # thick slices are usual


@pytest.mark.parametrize("seed", range(5))
def test_oblique_scans_have_no_findings(seed):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.random.default_rng(seed).uniform(-0.4, 0.4, 3)).as_matrix()
    assert codes(CHEST, turn @ grid()) == []


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_axes_are_found_in_any_stored_order(order):
    affine, shape = grid()[:, [*order, 3]], np.array([512, 512, 3])[list(order)]
    assert [order[axis] for axis in axial_axes(affine)] == [0, 1, 2]
    assert codes(shape, affine) == [("few_slices", "warning")]
    assert codes(shape, affine * [-1, 1, -1, 1]) == [("few_slices", "warning")]


@pytest.mark.parametrize(
    ("affine", "found"),
    [
        (grid(z=(np.nan, 0, 5)), "NaN or infinite"),
        (grid(origin=(0, np.inf, 0)), "NaN or infinite"),
        (grid(z=(0, 0, 0)), "singular affine"),
        (grid(z=(0.7, 0.7, 0)), "singular affine"),
        (np.zeros((4, 4)), "singular affine"),
        (np.eye(3), "shape"),
        (grid().T, "the last row of the affine is 10, 20, 30, 1; expected: 0, 0, 0, 1"),
        (grid() * [[1], [1], [1], [2]], "the last row of the affine is 0, 0, 0, 2"),
        (grid(y=(0.07, 0.7, 0)), r"in-plane axes at 84\.29 degrees \(shear\)"),
        (grid(z=(0, 5 * np.tan(np.radians(31)), 5)), r"shifted by 31\.0 degrees"),
    ],
)
def test_what_is_no_grid_of_slices_is_refused(affine, found):
    with pytest.raises(UserError, match=rf"^scan\.nii: .*{found}") as caught:
        check_geometry("scan.nii", CHEST, affine)
    assert "\n" not in str(caught.value)


def test_rounding_is_no_shear():
    angle = np.radians(80)
    rounded = np.round([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]], 4)
    assert codes(CHEST, grid(*rounded)) == []
    assert codes(CHEST, grid(y=(0.7 * 9e-4, 0.7, 0), z=(0, 5 * 9e-4, 5))) == []
    with pytest.raises(UserError, match="shear"):
        codes(CHEST, grid(y=(0.7 * 2e-3, 0.7, 0)))
    assert codes(CHEST, grid(z=(0, 5 * 2e-3, 5))) == [("gantry_tilt", "warning")]


@pytest.mark.parametrize("tilt", [-30, -12.5, 0.5, 20, 30])
def test_a_gantry_tilt_is_told_in_degrees(tilt):
    angle = np.radians(tilt)
    affine = grid(y=(0, 0.7 * np.cos(angle), 0.7 * np.sin(angle)))  # slices tilt, the table goes straight
    [note] = check_geometry("scan.nii", CHEST, affine)
    assert (note.code, note.kind) == ("gantry_tilt", "warning")
    assert f"{abs(tilt):.1f} degrees" in note.text
    sagittal_first = affine[:, [2, 0, 1, 3]]
    assert check_geometry("scan.nii", (60, 512, 512), sagittal_first) == [note]


@pytest.mark.parametrize(("depth", "few"), [(1, True), (4, True), (5, False)])
def test_few_slices(depth, few):
    assert codes((512, 512, depth), grid()) == [("few_slices", "warning")] * few
    assert codes((512, 512, depth), grid(), picture=True) == []


@pytest.mark.parametrize("shape", [(15, 512, 60), (512, 15, 60), (1, 512, 512)])
def test_slices_too_small_are_refused(shape):
    with pytest.raises(UserError, match=rf"axial slices of {shape[0]} x {shape[1]} voxels.*at least 16 x 16"):
        codes(shape, grid())
    assert codes((16, 16, 60), grid(), voxel_size_known=False) == []
    assert codes((2048, 2048, 60), grid(x=(0.2, 0, 0), y=(0, 0.2, 0))) == []


@pytest.mark.parametrize(
    ("sizes", "odd"),
    [
        ((0.7, 0.7, 20), False),
        ((0.7, 0.7, 21), True),
        ((0.19, 0.19, 1), True),
        ((3.1, 3.1, 3), True),
        ((3, 3, 3), False),
        ((0.7, 0.7, 0.1), True),
    ],
)
def test_voxel_sizes_a_chest_ct_does_not_have(sizes, odd):
    affine = np.diag([*sizes, 1.0])
    shape = (1024, 1024, 60)
    assert [note.code for note in check_extent("scan", shape, affine)] == ["implausible_voxel_size"] * odd
    assert codes(shape, affine, voxel_size_known=False) == []


def test_a_field_of_view_too_small_for_a_chest():
    assert codes((213, 215, 60), grid()) == [("small_field_of_view", "warning")]  # 149.1 x 150.5 mm
    assert codes((215, 215, 60), grid()) == []
    assert codes((213, 215, 60), grid(), voxel_size_known=False) == []


def test_the_largest_distance_is_reached_at_a_corner():
    turned = grid() @ np.diag([1, 1, 1.0, 1])
    turned[:3, :3] = Rotation.from_euler("z", 1, degrees=True).as_matrix() @ turned[:3, :3]
    every = np.array(list(np.ndindex(9, 8, 7)))
    apart = np.linalg.norm(every @ (turned - grid())[:3, :3].T, axis=1).max()
    assert corner_distance((9, 8, 7), grid(), turned) == pytest.approx(apart)
