"""Lungs of synthetic chests against their truth, and of real ones against what is known of them."""

from __future__ import annotations

import csv
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from scripts.anatomy.lungs import Lungs, segment_lungs
from scripts.anatomy.sides import LEFT, RIGHT
from scripts.anatomy.tissue import segment_tissue

SPACING = (2.2, 2.2, 4.5)
TRUTH_LEFT, TRUTH_RIGHT = 1, 2  # the codes of the phantom


def slabs(lungs: Lungs) -> np.ndarray:
    return np.stack([lungs.slab(z) for z in range(lungs.shape[2])], axis=2)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def test_phantom_lungs_left_and_right_apart(phantom, phantom_lungs):
    mask = slabs(phantom_lungs)
    assert dice(mask == RIGHT, phantom.lungs == TRUTH_RIGHT) > 0.96
    assert dice(mask == LEFT, phantom.lungs == TRUTH_LEFT) > 0.96
    voxel = np.prod(SPACING) / 1000
    assert phantom_lungs.right_ml == pytest.approx((phantom.lungs == TRUTH_RIGHT).sum() * voxel, rel=0.06)
    assert phantom_lungs.left_ml == pytest.approx((phantom.lungs == TRUTH_LEFT).sum() * voxel, rel=0.06)
    assert phantom_lungs.right_ml == pytest.approx((mask == RIGHT).sum() * voxel)
    assert phantom_lungs.plausible, phantom_lungs.doubts


def test_infection_belongs_to_the_lung(phantom, phantom_lungs):
    assert (slabs(phantom_lungs)[phantom.infection > 0] > 0).mean() > 0.95


def test_trachea_and_stomach_do_not(phantom, phantom_lungs):
    gas = (phantom.image < -500) & (phantom.lungs == 0)
    gas[:40] = gas[120:] = gas[:, :20] = gas[:, 100:] = False  # the room
    parts, _ = ndimage.label(ndimage.binary_erosion(gas, np.ones((3, 3, 1))))
    stomach, trachea = (parts == part for part in np.argsort(np.bincount(parts.ravel())[1:])[-1:-3:-1] + 1)
    assert np.nonzero(trachea)[2].max() == 59  # both are there
    assert np.nonzero(stomach)[2].max() < 20
    mask = slabs(phantom_lungs) > 0
    assert not mask[trachea].any()
    assert not mask[stomach].any()


@pytest.mark.parametrize("depth", [12, 30])
def test_consolidation_at_the_chest_wall_is_filled(phantom, phantom_lungs, depth):
    """An opacity of muscle's HU that spans 45 mm along the wall and reaches `depth` mm into the
    lung."""
    right = phantom.lungs == TRUTH_RIGHT
    _, y, z = (int(v) for v in ndimage.center_of_mass(right))
    wall = int(np.flatnonzero(right[:, y, z]).min())
    place = np.s_[wall : wall + int(depth / 2.2), y - 10 : y + 10, z - 5 : z + 5]
    image = phantom.image.copy()
    image[place] = np.where(right[place], 45, image[place])
    mask = slabs(segment_lungs(segment_tissue(image, SPACING)))
    assert (mask[place][right[place]] == RIGHT).mean() > 0.9
    assert dice(mask == RIGHT, right) > 0.95


def test_type_and_order_in_memory_do_not_matter(phantom, phantom_lungs):
    image = np.asfortranarray(phantom.image.astype(np.float32))
    np.testing.assert_array_equal(segment_lungs(segment_tissue(image, SPACING)).mask, phantom_lungs.mask)


def test_finer_voxels_give_the_same_lungs(phantom, phantom_lungs):
    fine = phantom.image.repeat(2, 0).repeat(2, 1)[:-1]  # an odd number of voxels, too
    lungs = segment_lungs(segment_tissue(fine, (1.1, 1.1, 4.5)))
    assert lungs.steps == (2, 2, 1)
    assert lungs.slab(30).shape == fine.shape[:2]
    assert dice(slabs(lungs) > 0, (slabs(phantom_lungs) > 0).repeat(2, 0).repeat(2, 1)[:-1]) > 0.99
    assert lungs.right_ml == pytest.approx(phantom_lungs.right_ml, rel=0.01)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_slices_give_doubts_not_crashes(phantom, count):
    image = phantom.image[:, :, 30 : 30 + count]
    lungs = segment_lungs(segment_tissue(image, SPACING))
    assert not lungs.plausible
    assert lungs.partial
    assert f"{count} slices" in " ".join(lungs.doubts)
    assert dice(slabs(lungs) > 0, phantom.lungs[:, :, 30 : 30 + count] > 0) > 0.9


def test_scan_that_ends_within_the_lungs_is_incomplete(phantom):
    lungs = segment_lungs(segment_tissue(phantom.image[:, :, 22:], SPACING))
    assert lungs.partial
    assert any("beyond the lowest slice" in cut for cut in lungs.cuts)
    assert not any("highest" in cut for cut in lungs.cuts)


def test_field_of_view_that_cuts_the_lungs(phantom):
    lungs = segment_lungs(segment_tissue(phantom.image[50:, 25:-25], SPACING))
    assert lungs.partial
    assert any("at the patient's right" in cut for cut in lungs.cuts)
    truth = phantom.lungs[50:, 25:-25]
    assert dice(slabs(lungs) == LEFT, truth == TRUTH_LEFT) > 0.93


@pytest.mark.parametrize("hu", [-1000, 40])
@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 64, 1), (80, 80, 40)])
def test_nothing_and_nothing_but_tissue(hu, shape):
    lungs = segment_lungs(segment_tissue(np.full(shape, hu, np.int16), (2.0, 2.0, 2.0)))
    assert not lungs.mask.any()
    assert lungs.doubts == ["No lung was found in the scan."]
    assert (lungs.right_ml, lungs.left_ml) == (0, 0)


def test_a_lung_that_is_gone_is_a_problem(phantom):
    image = np.where(phantom.lungs == TRUTH_LEFT, 30, phantom.image).astype(np.int16)
    lungs = segment_lungs(segment_tissue(image, SPACING))
    assert lungs.right_ml > 5 * lungs.left_ml
    assert not lungs.plausible


def test_air_beside_the_body_is_no_lung(phantom):
    """A cushion of lung's HU under the back and the air between it and the skin."""
    image = phantom.image.copy()
    image[40:120, -8:] = -800
    mask = slabs(segment_lungs(segment_tissue(image, SPACING)))
    assert not mask[:, -8:].any()


def test_areas_count_the_voxels_of_every_slice_where_blocks_end_beyond_the_scan():
    mask = np.random.default_rng(5).integers(0, 3, (4, 3, 3), np.uint8)
    lungs = Lungs(mask, (3, 2, 2), (0.7, 0.8, 1.5), (10, 5, 5))
    expected = [[np.count_nonzero(lungs.slab(z) == code) for code in (RIGHT, LEFT)] for z in range(5)]
    assert lungs.areas().tolist() == expected
    assert lungs.right_ml == pytest.approx(sum(right for right, _ in expected) * 0.7 * 0.8 * 1.5 / 1000)


def test_slab_outside_is_an_index_error(phantom_lungs):
    with pytest.raises(IndexError, match="60"):
        phantom_lungs.slab(60)


def test_memory_stays_far_below_a_copy_of_the_volume():
    hu = np.full((512, 512, 200), -1000, np.int16)
    hu[100:400, 100:400] = 40
    hu[130:220, 150:350, 20:180] = hu[280:370, 150:350, 20:180] = -850
    tracemalloc.start()
    segment_lungs(segment_tissue(hu, (0.75, 0.75, 1.5)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.6 * hu.nbytes  # a float32 copy of it would be 2 on top of the coarse arrays


@pytest.mark.real_data
def test_p001(lung_ct_data, p001):
    hu, spacing = p001
    lungs = segment_lungs(segment_tissue(hu, spacing))
    assert lungs.plausible, lungs.doubts
    assert 5800 < lungs.right_ml + lungs.left_ml < 6500
    assert 0.48 < lungs.right_ml / (lungs.right_ml + lungs.left_ml) < 0.56
    assert not lungs.slab(136)[240:262, 230:262].any()  # the trachea
    mask = slabs(lungs)
    with (lung_ct_data / "covid_ct_md" / "P001_slice_labels.csv").open() as file:
        infected = [int(row["slice_from_superior"]) for row in csv.DictReader(file) if row["infected"] == "1"]
    assert infected
    assert all(mask[:, :, hu.shape[2] - 1 - k].any() for k in infected)
    assert (mask[130:180, 350:365, 61] == RIGHT).all()  # the opacity at the back of the right lower lobe


@pytest.mark.real_data
def test_normal001(normal001):
    hu, spacing = normal001
    lungs = segment_lungs(segment_tissue(hu, spacing))
    assert lungs.plausible, lungs.doubts
    assert 3300 < lungs.right_ml + lungs.left_ml < 3700
    assert 0.51 < lungs.right_ml / (lungs.right_ml + lungs.left_ml) < 0.57
    mask = slabs(lungs)
    assert (hu[mask > 0] > -300).mean() < 0.05  # vessels; no liver, no heart


@pytest.mark.parametrize("part", [slice(8, 28), slice(8, 40), slice(30, 60)], ids=["lower", "middle", "upper"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_lung_that_is_one_with_the_room_where_the_field_of_view_cuts_the_wall(phantom, part, side):
    """The first columns of the field of view hold a cut rib with air of the room and of the lung
    around it."""
    image, truth = phantom.image[:, :, part].copy(), phantom.lungs[:, :, part]
    if side == "left":
        image, truth = image[::-1], truth[::-1]
    own, other = (TRUTH_RIGHT, TRUTH_LEFT) if side == "right" else (TRUTH_LEFT, TRUTH_RIGHT)
    first = int(np.flatnonzero((truth == own).any(axis=(1, 2)))[0])
    image, truth = image[first + 2 :].copy(), truth[first + 2 :]
    open_slices = (truth[0] == own).any(axis=0)
    assert open_slices.sum() >= 3
    for z in np.flatnonzero(open_slices):
        front = int(np.flatnonzero(truth[0, :, z] == own)[0])
        image[:2, : front + 2, z] = -1000  # the wall in front of the rib has ended: the room reaches the lung
    if side == "left":
        image, truth = image[::-1], truth[::-1]
    lungs = segment_lungs(segment_tissue(image, SPACING))
    mask = slabs(lungs)
    assert dice(mask == RIGHT, truth == TRUTH_RIGHT) > 0.93
    assert dice(mask == LEFT, truth == TRUTH_LEFT) > 0.93
    assert not any("was found" in doubt for doubt in lungs.doubts)
    assert other in truth


def test_a_rim_of_cushion_away_from_the_border_is_no_part_of_the_body():
    """A body with a hollow back on foam of lung's HU: within the convex hull, large,
    and open to the room."""
    x, y = np.mgrid[:120, :120] * 2.25 - 135.0
    slice_ = np.full((120, 120), -1000, np.int16)
    slice_[(x / 100) ** 2 + (y / 80) ** 2 < 1] = 40
    slice_[(abs(x) < 40) & (y > 40) & (y < 80)] = -850
    image = np.repeat(slice_[:, :, None], 10, axis=2)
    body = segment_tissue(image, (2.25, 2.25, 5.0)).body
    assert body[60, 60].all()
    assert not body[60, 90].any()


@pytest.mark.real_data
def test_the_lower_part_of_a_chest_whose_wall_the_field_of_view_cuts(lung_ct_data):
    """No lung of the right side was found here,
    because the room's air reaches it between two cut ribs."""
    path = lung_ct_data / "negatives" / "volumes" / "nodule_ge_standard_lower.nii.gz"
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    hu = sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.int16)
    lungs = segment_lungs(segment_tissue(hu, image.GetSpacing()))
    assert lungs.right_ml == pytest.approx(757, rel=0.03)
    assert lungs.left_ml == pytest.approx(1232, rel=0.01)  # as before
    assert lungs.plausible, lungs.doubts
    assert len(lungs.cuts) == 2  # above and below, and at the patient's right
