from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from scripts.errors import UserError
from scripts.transforms.items import UNKNOWN
from scripts.transforms.labels import EDGE_METHODS, EdgeLabeld, InfectionMaskd, MoreLabelsd, class_numbers


def blob(size: int = 48) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(4).normal(size=(size, size)), 4)
    mask = (noise > 0.02).astype(np.float32)
    mask[[0, -1], :] = mask[:, [0, -1]] = 0
    return mask


def edge(mask: np.ndarray, method: str) -> np.ndarray:
    label = EdgeLabeld("label", method)({"label": torch.from_numpy(mask)[None]})["label"]
    assert label.shape == (2, *mask.shape)
    np.testing.assert_array_equal(label[0].numpy(), mask)
    return label[1].numpy()


def test_inner_edge_equals_erosion_by_scipy() -> None:
    mask = blob()
    eroded = ndimage.binary_erosion(mask, np.ones((3, 3)))
    np.testing.assert_array_equal(edge(mask, "inner"), mask - eroded)


def test_gradient_edge_equals_dilation_minus_erosion_by_scipy() -> None:
    mask = blob()
    square = np.ones((3, 3))
    expected = ndimage.binary_dilation(mask, square).astype(float) - ndimage.binary_erosion(mask, square)
    np.testing.assert_array_equal(edge(mask, "gradient"), expected)


def test_sobel_edge_equals_gradient_magnitude_by_scipy() -> None:
    mask = blob()
    magnitude = np.hypot(ndimage.sobel(mask, 0, mode="nearest"), ndimage.sobel(mask, 1, mode="nearest"))
    np.testing.assert_array_equal(edge(mask, "sobel"), magnitude > 1.5)


def test_canny_edge_is_a_thin_contour_of_the_mask() -> None:
    mask = np.zeros((32, 32), np.float32)
    mask[8:24, 10:22] = 1
    contour = edge(mask, "canny")
    np.testing.assert_array_equal(contour, mask - ndimage.binary_erosion(mask, np.ones((3, 3))))  # 52 pixels


@pytest.mark.parametrize("method", EDGE_METHODS)
def test_an_empty_mask_has_no_edge(method: str) -> None:
    assert edge(np.zeros((16, 16), np.float32), method).sum() == 0


@pytest.mark.parametrize("method", ["inner", "gradient", "sobel"])
def test_a_mask_cut_by_the_image_has_no_edge_along_the_cut(method: str) -> None:
    assert edge(np.ones((16, 16), np.float32), method).sum() == 0


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="expected: inner, gradient, canny, sobel"):
        EdgeLabeld("label", "laplace")


def test_mask_takes_every_code_or_those_named() -> None:
    codes = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert InfectionMaskd("label")({"label": codes})["label"].tolist() == [[0.0, 1.0, 1.0, 1.0]]
    assert InfectionMaskd("label")({"label": codes, "label_codes": [3]})["label"].tolist() == [[0.0, 0.0, 0.0, 1.0]]
    assert InfectionMaskd("label")({"label": torch.tensor([[0.0, 255.0]])})["label"].tolist() == [[0.0, 1.0]]


def test_codes_of_any_key() -> None:
    codes = torch.tensor([[0.0, 1.0, 2.0, 51.0]])
    found = InfectionMaskd(("label", "prior"))({"label": codes, "prior": codes, "label_codes": [2], "prior_scale": 255})
    assert found["label"].tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert found["prior"][0, 3].item() == pytest.approx(0.2)


def test_class_numbers_of_indices_and_of_greys() -> None:
    assert class_numbers(torch.tensor([0.0, 1.0, 2.0, 38.0, 75.0]), "a.png").tolist() == [0, 1, 2, 1, 2]
    with pytest.raises(UserError, match=r"a\.png: holds the values 3, 255"):
        class_numbers(torch.tensor([1.0, 255.0, 3.0]), "a.png")


def test_finer_masks_count_where_known_and_disputed_voxels_are_unknown() -> None:
    label = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    finer, second = torch.tensor([[255.0, 0.0, 1.0, 255.0]]), torch.tensor([[2.0, 0.0, 1.0, 1.0]])
    join = MoreLabelsd("label")
    finest = join({"label": label, "finer": finer})
    assert set(finest) == {"label"}
    assert finest["label"].tolist() == [[1.0, 0.0, 1.0, 0.0]]
    joined = join({"label": label, "second": second})
    assert joined["label"].tolist() == [[1.0, UNKNOWN, UNKNOWN, UNKNOWN]]
    assert join({"label": label})["label"] is label


def test_the_edge_of_a_disputed_rim_is_unknown_itself() -> None:
    mask = torch.zeros(1, 9, 9)
    mask[0, 2:7, 2:7] = UNKNOWN
    mask[0, 3:6, 3:6] = 1.0
    mask, edge = EdgeLabeld("label")({"label": mask})["label"]
    assert not edge[mask == 1].any()
    assert (mask[edge == 1] == UNKNOWN).all()
    assert edge.sum() == 16
