from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.report.key_images import draw_key_image, draw_overview
from scripts.report.lesion_pictures import LesionPicture


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("size", "times"), [(512, 1), (256, 2), (768, 1), (20, 26)])
def test_views_stand_beside_each_other_at_a_whole_multiple(size: int, times: int) -> None:
    one, other = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    image = draw_key_image(LesionPicture("Lesion 1", {"lung window": png(one), "mediastinal window": png(other)}))
    side = size * times
    assert image.shape[1] == 2 * side
    assert side < image.shape[0] < side + 200
    corner = 2 * max(size // 8, 1)  # no letter is in a corner
    for left, pixels in ((0, one), (side, other)):
        shown = image[:corner, left : left + corner]
        np.testing.assert_array_equal(shown, pixels.repeat(times, 0).repeat(times, 1)[:corner, :corner])


def test_the_caption_is_below_and_stays_inside() -> None:
    black = png(np.zeros((512, 512, 3), np.uint8))
    heights = []
    for words in (3, 60):
        image = draw_key_image(LesionPicture("Lesion " * words, {"lung window": black}))
        drawn = image[512:].any(axis=(0, 2))
        assert drawn.any()
        assert not drawn[-9:].any()
        heights.append(image.shape[0])
    assert heights[1] > heights[0]


def test_nothing_of_the_overview_is_covered(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (93, 800, 3), np.uint8)
    (tmp_path / "preview.png").write_bytes(png(pixels))
    image = draw_overview(tmp_path / "preview.png")
    np.testing.assert_array_equal(image[:93], pixels)
    assert image[93:].any()
