from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data.phantom.scan import make_phantom
from scripts.errors import UserError
from scripts.transforms.postprocessing import EvaluationOutput, InfectionMask, ScanProbabilities, SmallLesionsRemovedd
from scripts.transforms.preprocessing import Preprocessing
from scripts.transforms.small_lesions import without_small_lesions

SIZE = 32


@pytest.fixture(params=["LPS", "RAS", "SAR", "PIL"])
def predicted(request, resize_weights, make_scan: Callable[..., tuple[Path, Path]], turned, tmp_path: Path):
    """A stored scan, the item after the network with known logits,
    and the probability expected on the scan's grid."""
    path, _ = make_scan(affine=np.diag([-0.7, -0.7, 5.0, 1.0]))
    stored = tmp_path / "stored.nii.gz"
    scan = nib.load(path)
    nib.save(turned(scan, request.param), stored)
    preprocessing = Preprocessing(size=SIZE)
    item = preprocessing({"image": str(stored)})
    probability = np.random.default_rng(0).uniform(0.05, 0.95, (SIZE, SIZE, 6))
    item["pred"] = MetaTensor(torch.logit(torch.from_numpy(probability)[None]).float(), meta=dict(item["image"].meta))
    canonical = np.einsum("ia,jb,abz->ijz", resize_weights(40, SIZE), resize_weights(36, SIZE), probability)
    expected = turned(nib.Nifti1Image(canonical, scan.affine), request.param).get_fdata()
    return preprocessing, item, canonical, expected


def test_probabilities_return_to_the_scans_grid_and_orientation(predicted) -> None:
    preprocessing, item, _, expected = predicted
    found = ScanProbabilities(preprocessing)(item)["pred"]
    np.testing.assert_allclose(found.numpy()[0], expected, atol=1e-5)


def test_the_mask_is_where_the_probability_reaches_the_threshold(predicted) -> None:
    preprocessing, item, _, expected = predicted
    found = InfectionMask(preprocessing, threshold=0.6)(item)["pred"]
    assert found.dtype == torch.uint8
    sure = np.abs(expected - 0.6) > 1e-5
    np.testing.assert_array_equal(found.numpy()[0][sure], (expected >= 0.6)[sure])


def test_metrics_are_taken_in_canonical_orientation(predicted) -> None:
    preprocessing, item, canonical, _ = predicted
    found = EvaluationOutput(preprocessing, "scan")(dict(item))["pred"]
    np.testing.assert_allclose(found.numpy()[0], canonical, atol=1e-5)
    network = EvaluationOutput(preprocessing, "network")(dict(item))["pred"]
    assert network.shape == (1, SIZE, SIZE, 6)


def test_slices_beyond_the_field_of_view_hold_no_prediction_on_either_grid(tmp_path: Path) -> None:
    phantom = make_phantom(2, shape=(96, 96, 40), spacing=(3.6, 3.6, 8.0))
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), tmp_path / "scan.nii.gz")
    preprocessing = Preprocessing(size=SIZE, field_of_view="lungs")
    item = preprocessing({"image": str(tmp_path / "scan.nii.gz")})
    low, high, depth = np.asarray(item["box"])[2].tolist()
    assert high - low < depth == 40
    item["pred"] = MetaTensor(torch.full((1, SIZE, SIZE, 40), 2.0), meta=dict(item["image"].meta))
    for grid in ("scan", "network"):
        found = EvaluationOutput(preprocessing, grid)(dict(item))["pred"]
        marked = [z for z in range(40) if found[..., z].max() > 0]
        assert marked == list(range(low, high)), grid


def lesions() -> MetaTensor:
    """Voxels of 0.5 x 2 x 3 = 3 mm3: one lesion of one voxel, one of two that touch at a corner,
    one of three."""
    mask = torch.zeros((1, 8, 8, 4), dtype=torch.uint8)
    mask[0, 0, 0, 0] = 1
    mask[0, 4, 4, 1] = mask[0, 5, 5, 2] = 1
    mask[0, 7, 0:3, 3] = 1
    affine = np.array([[0, 2.0, 0, 10], [-0.5, 0, 0, 20], [0, 0, 3.0, 30], [0, 0, 0, 1]])
    return MetaTensor(mask, affine=affine)


@pytest.mark.parametrize(("smallest", "kept"), [(0, 6), (3.0, 6), (3.1, 5), (6.0, 5), (6.5, 3), (9.0, 3), (9.1, 0)])
def test_lesions_below_a_volume_in_mm3_are_left_out(smallest: float, kept: int) -> None:
    mask = SmallLesionsRemovedd("pred", smallest)({"pred": lesions()})["pred"]
    assert int(mask.sum()) == kept
    assert mask.dtype == torch.uint8
    assert mask.shape == (1, 8, 8, 4)
    np.testing.assert_array_equal(mask.affine, lesions().affine)


def test_a_lone_lesion_that_fills_its_box_is_left_out_too() -> None:
    mask = np.zeros((6, 6, 3), np.uint8)
    mask[2:4, 2:4, 1] = 1
    assert without_small_lesions(mask, 1.0, 5.0).sum() == 0
    np.testing.assert_array_equal(without_small_lesions(mask, 1.0, 4.0), mask)
    np.testing.assert_array_equal(without_small_lesions(mask, 0.7 * 0.7, 4 * 0.49), mask)  # 4.0000000000000003 voxels


@pytest.mark.parametrize("meta", [{"picture": True}, {"voxel_size_known": False}])
def test_without_a_voxel_size_lesions_stay(meta: dict[str, bool]) -> None:
    mask = MetaTensor(lesions(), meta={**lesions().meta, **meta})
    assert int(SmallLesionsRemovedd("pred", 100.0)({"pred": mask})["pred"].sum()) == 6


@pytest.mark.parametrize(("threshold", "smallest"), [(0.0, 0), (1, 0), ("a half", 0), (0.5, -1), (0.5, "much")])
def test_operating_points_that_make_no_sense_are_refused(threshold: object, smallest: object) -> None:
    with pytest.raises(UserError, match="expected"):
        InfectionMask(Preprocessing(size=SIZE), threshold, smallest)


def test_another_grid_of_the_metrics_is_refused() -> None:
    with pytest.raises(UserError, match="metric_grid is 'foo'; expected: scan, network"):
        EvaluationOutput(Preprocessing(), "foo")
