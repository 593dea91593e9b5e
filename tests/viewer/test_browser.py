"""The page as a person uses it, in headless Chromium."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.viewer.results import find_case, find_cases
from scripts.viewer.server import serving
from scripts.viewer.site import build_site
from tests.viewer.conftest import Made

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
READY = "document.querySelectorAll('.view[data-state=ready]').length === {} && views[0].position !== null"

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


async def focus_canvas(tab: Any) -> None:
    """Goes to the scan by the keyboard."""
    for _ in range(30):
        await tab.press("Tab")
        if await tab.js("document.activeElement === views[0].canvas"):
            return
    raise AssertionError("the scan cannot be reached by Tab")


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
