"""The page as a person uses it, in headless Chromium."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from scripts.viewer.results import find_case, find_cases
from scripts.viewer.server import serving
from scripts.viewer.site import build_site
from tests.viewer.conftest import Made

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
READY = "document.querySelectorAll('.view[data-state=ready]').length === {} && views[0].position !== null"
ROUNDED = 8  # pixels at the edge of the scan: the orange line around what has the focus cuts the corners
ORANGE_OF_THE_MASK = 60  # levels of red above blue: the scan is grey, the crosshair blue

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
Visit = Callable[[str, Callable[[Any], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def visit(made: Made, tmp_path: Path) -> Visit:
    """Opens a page of the server and lets a test act on it; nothing may be complained of."""
    from tests.viewer.chromium import page  # tornado, which the cluster extra brings

    def run(path: str, act: Callable[[Any], Coroutine[Any, Any, None]], prior: bool = False) -> None:
        earlier = find_case(made.output / "study") if prior else None

        async def visited(address: str) -> None:
            async with page(CHROMIUM, f"{address}{path}", tmp_path, 420, 700) as tab:
                await tab.until(READY.format(1 + prior))
                await act(tab)
                assert tab.complaints() == []
                elsewhere = {one for one in tab.asked_for() if not one.startswith((address, "data:", "blob:"))}
                assert elsewhere <= {"about:blank"}

        with serving(build_site(find_cases(made.output), earlier)) as address:
            asyncio.run(visited(address))

    return run


def stored(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


async def focus_canvas(tab: Any) -> None:
    """Goes to the scan by the keyboard."""
    for _ in range(30):
        await tab.press("Tab")
        if await tab.js("document.activeElement === views[0].canvas"):
            return
    raise AssertionError("the scan cannot be reached by Tab")


def test_volumes_lesions_windows_and_keys(visit: Visit, made: Made) -> None:
    report = json.loads((made.output / "chest" / "report.json").read_text())
    lesions = report["measures"]["lesions"]["lesions"]
    hu, mask = stored(made.scans / "chest.nii.gz"), stored(made.output / "chest" / "infection.nii.gz")

    async def act(tab: Any) -> None:
        for index, expected in enumerate((hu, mask)):
            dims, values = await tab.js(
                f"(one => [one.hdr.dims.slice(1, 4), Array.from(one.img)])(views[0].niivue.volumes[{index}])"
            )
            assert dims == list(expected.shape)
            np.testing.assert_array_equal(np.reshape(values, expected.shape, order="F"), expected)
        await focus_canvas(tab)
        for key, number in (("", 0), ("n", 1), ("N", 0)):
            if key:
                await tab.press(key, shift=key == "N")
            where = await tab.js("document.querySelector('.place').textContent")
            found = re.fullmatch(r"slice (\d+) of 20 from the head; (.*) mm; value (-?\d+), marked", where)
            assert found, where
            assert int(found[1]) == lesions[number]["largest_slice_from_superior"]
            position = np.array(await tab.js("views[0].position"))
            x, y, z = np.rint(np.linalg.inv(nib.load(made.scans / "chest.nii.gz").affine) @ [*position, 1])[:3]
            assert mask[int(x), int(y), int(z)] == 1
            assert int(found[3]) == hu[int(x), int(y), int(z)]
        assert await tab.js("document.querySelector('.lesions [aria-current=true]').textContent[0]") == "1"
        await tab.press("PageUp")
        where = await tab.js("document.querySelector('.place').textContent")
        assert where.startswith(f"slice {lesions[0]['largest_slice_from_superior'] - 1} of 20")
        for key, window in (("m", [-160, 240]), ("b", [-500, 1300]), ("f", [hu.min(), hu.max()]), ("l", [-1350, 150])):
            await tab.press(key)
            assert await tab.js("(one => [one.cal_min, one.cal_max])(views[0].niivue.volumes[0])") == window
            pressed = await tab.js("document.querySelector('[data-window][aria-pressed=true]').textContent")
            assert pressed[0].lower() == {"f": "a"}.get(key, key)
        for key, layout in (("2", 0), ("3", 1), ("4", 2), ("5", 4), ("1", 3)):
            await tab.press(key)
            assert await tab.js("views[0].niivue.opts.sliceType") == layout
        await tab.press("n")
        await tab.press("N", shift=True)
        coloured = await tab.picture()
        await tab.press("o")
        grey = await tab.picture()
        frame = await tab.js(
            "(one => [one.left, one.top, one.right, one.bottom])(views[0].canvas.getBoundingClientRect())"
        )
        left, top, right, bottom = map(int, frame)
        inside = np.s_[top + ROUNDED : bottom - ROUNDED, left + ROUNDED : right - ROUNDED]
        orange = [((one[..., 0] - one[..., 2])[inside] > ORANGE_OF_THE_MASK).sum() for one in (coloured, grey)]
        assert orange[0] > 100
        assert orange[1] == 0

    visit("1/", act)


def test_an_earlier_scan_beside_it_moves_along(visit: Visit) -> None:
    async def act(tab: Any) -> None:
        assert await tab.js("views.map(one => one.niivue.volumes.length)") == [2, 2]
        assert await tab.js("views[1].section.getAttribute('aria-label')") == "Earlier: study"
        before = np.array(await tab.js("views.map(one => one.position)"))
        await focus_canvas(tab)
        await tab.press("PageUp")
        apart = np.array(await tab.js("views.map(one => one.position)"))
        np.testing.assert_allclose(apart - before, [[0, 0, 14], [0, 0, 0]], atol=0.01)
        await tab.press("y")
        await tab.press("PageUp")
        together = np.array(await tab.js("views.map(one => one.position)"))
        np.testing.assert_allclose(together - apart, [[0, 0, 14], [0, 0, 14]], atol=0.01)
        await tab.press("p")
        assert await tab.js("views[1].section.hidden")

    visit("1/", act, prior=True)


def test_a_picture_is_shown_as_one_plane(visit: Visit, made: Made) -> None:
    async def act(tab: Any) -> None:
        where = await tab.js("document.querySelector('.place').textContent")
        assert re.fullmatch(r"column \d+ of 68, row \d+ of 62; value \d+, marked", where)
        column, row = (int(number) - 1 for number in re.findall(r"(\d+) of", where))
        assert stored_picture(made)[row, column] == int(re.search(r"value (\d+)", where)[1])

    visit("3/", act)


def stored_picture(made: Made) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(made.scans / "slice.png"))
