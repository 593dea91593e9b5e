"""Which way up a scan is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scripts.anatomy import orientation
from scripts.anatomy.downsampling import downsample
from scripts.anatomy.lungs import Lungs, segment_lungs
from scripts.anatomy.orientation import orientation_findings
from scripts.anatomy.tissue import segment_tissue

SPACING = (2.2, 2.2, 4.5)
TURNS = {
    "Left and right": np.s_[::-1],
    "Front and back": np.s_[:, ::-1],
    "Head and feet": np.s_[:, :, ::-1],
}


def findings(hu: np.ndarray, spacing: tuple[float, ...]) -> list[str]:
    seen = segment_tissue(hu, spacing)
    return orientation_findings(seen.scan, segment_lungs(seen))


def test_phantom_the_right_way_up(phantom, phantom_lungs):
    assert orientation_findings(downsample(phantom.image, SPACING), phantom_lungs) == []


@pytest.mark.parametrize("exchange", ["Front and back", "Head and feet"])
def test_phantom_turned(phantom, exchange):
    found = findings(phantom.image[TURNS[exchange]], SPACING)
    assert len(found) == 1
    assert found[0].startswith(exchange)
    assert "confidence" in found[0]


def mirrored(share: float, heart: float, right: float) -> orientation.Evidence:
    return orientation.Evidence(width=1.5, abdomen=0.85, spine=0.98, liver=share, heart=heart, right=right)


@pytest.mark.parametrize(
    ("evidence", "confidence"),
    [
        (mirrored(0.2, -12, 0.46), "high"),
        (mirrored(0.2, 3, 0.46), "moderate"),
        (mirrored(0.2, -12, 0.52), "moderate"),
        (mirrored(0.2, 3, 0.52), None),  # the liver alone is not believed
        (mirrored(0.7, -12, 0.46), None),
        (mirrored(float("nan"), -12, 0.46), None),
    ],
)
def test_left_and_right_take_two_witnesses(phantom, phantom_lungs, monkeypatch, evidence, confidence):
    monkeypatch.setattr(orientation, "weigh", lambda *_: evidence)
    found = orientation_findings(downsample(phantom.image, SPACING), phantom_lungs)
    assert len(found) == (confidence is not None)
    assert all(text.startswith("Left and right") and f"({confidence} confidence)" in text for text in found)
    assert orientation_findings(downsample(phantom.image, SPACING), replace(phantom_lungs, cuts=["Cut."])) == []


def test_mask_at_full_resolution_serves_as_well(phantom):
    turned = phantom.image[:, ::-1].repeat(2, 0).repeat(2, 1)
    lungs = Lungs.from_mask((phantom.lungs[:, ::-1] > 0).repeat(2, 0).repeat(2, 1), (1.1, 1.1, 4.5))
    assert orientation_findings(downsample(turned, (1.1, 1.1, 4.5)), lungs)[0].startswith("Front and back")


def test_no_evidence_no_finding(phantom):
    assert findings(np.full((60, 60, 20), 40, np.int16), SPACING) == []
    crop = phantom.image[40:120, :80, 25:40]  # no spine, no ends of the lungs
    assert findings(crop, SPACING) == []
    assert findings(crop[:, ::-1], SPACING) == []


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["p001", "normal001"])
def test_real_chests_as_they_are(request, name):
    hu, spacing = request.getfixturevalue(name)
    for part in (np.s_[:], np.s_[:, :, 70:], np.s_[:, :, :80]):  # whole, no abdomen, no apexes
        assert findings(hu[part], spacing) == []


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["p001", "normal001"])
def test_real_chests_turned(request, name):
    hu, spacing = request.getfixturevalue(name)
    for exchange, turn in TURNS.items():
        found = findings(hu[turn], spacing)
        assert [text.split(" seem")[0] for text in found] == [exchange]
