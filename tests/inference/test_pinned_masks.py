"""Masks of the shipped compact weights, pinned: what changes them has to be wanted.

`python -m tests.inference.test_pinned_masks` pins them anew, with torch in float32, as a change of
the weights asks for. Other backends and processors may differ by what `TOLERANCE` says. The
phantoms are kept with their masks, because versions of numpy and scipy round them differently.
"""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scripts.data.phantom.scan import make_phantom
from scripts.inference.backends import choice
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.segmenter import Segmenter
from scripts.io.memory import scan_from_memory
from scripts.precision import mixed_precision
from scripts.version import BUNDLE

WEIGHTS = BUNDLE / "models" / "model.pt"
PINNED, MASKS = Path(__file__).with_name("pinned_masks.json"), Path(__file__).with_name("pinned_masks.npz")
INPUTS: dict[str, dict[str, Any]] = {
    "thick slices": {"seed": 3, "shape": (160, 160, 12), "spacing": (2.2, 2.2, 20.0)},
    "thin pixels": {"seed": 7, "shape": (256, 256, 8), "spacing": (1.4, 1.4, 30.0)},
    "not infected": {"seed": 3, "shape": (160, 160, 12), "spacing": (2.2, 2.2, 20.0), "infected": False},
}
PARTS = ("image", "affine", "infection", "mask")
TOLERANCE = {"fp32": 0.001, "bf16": 0.03}
"""Voxels that may differ from the pinned mask, as a fraction of those that it marks."""
DICE_TOLERANCE = {"fp32": 0.0005, "bf16": 0.01}
BACKENDS = [
    ("torch", "fp32"),
    pytest.param(
        "torch",
        "bf16",
        marks=pytest.mark.skipif(
            mixed_precision("auto", "cpu") is not torch.bfloat16, reason="this processor has no bfloat16 instructions"
        ),
    ),
    pytest.param(
        "openvino", "fp32", marks=pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
    ),
    pytest.param(
        "openvino",
        "bf16",
        marks=pytest.mark.skipif(
            find_spec("openvino") is None or mixed_precision("auto", "cpu") is not torch.bfloat16,
            reason="needs openvino and a processor with bfloat16 instructions",
        ),
    ),
]


def digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def segment(image: NDArray[np.int16], affine: NDArray[np.float64], backend: str, precision: str) -> NDArray[np.uint8]:
    scan = scan_from_memory((image, affine))
    segmenter = Segmenter(WEIGHTS, "cpu", backend=backend, precision=precision)
    return segmenter.segment(scan, HounsfieldSlices(scan)).mask


def dice(mask: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    both = int(mask.sum()) + int(truth.sum())
    return 2 * int((mask & truth).sum()) / both if both else 1.0


@pytest.fixture(scope="module")
def pinned() -> dict[str, Any]:
    """What is pinned of each input: digests of image and mask, Dice."""
    return dict(json.loads(PINNED.read_text()))


@pytest.mark.parametrize(("backend", "precision"), BACKENDS)
@pytest.mark.parametrize("name", INPUTS)
def test_masks_are_those_that_were_pinned(
    name: str, backend: str, precision: str, pinned: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "openvino_installed", lambda: True)
    monkeypatch.setattr(choice, "mixed_precision", mixed_precision)  # other tests compute in float32 everywhere
    known = pinned[name]
    with np.load(MASKS) as kept:
        image, affine, infection, expected = (kept[f"{name}: {part}"] for part in PARTS)
    assert digest(image) == known["image_sha256"]
    assert digest(expected) == known["mask_sha256"]
    mask = segment(image, affine, backend, precision)
    if digest(mask) != known["mask_sha256"]:
        assert np.count_nonzero(mask != expected) <= TOLERANCE[precision] * np.count_nonzero(expected)
    assert dice(mask, infection) == pytest.approx(known["dice"], abs=DICE_TOLERANCE[precision])


def pin() -> None:
    """Write what this machine finds with torch in float32."""
    found, kept = {}, {}
    for name, settings in INPUTS.items():
        phantom = make_phantom(**settings)
        mask = np.ascontiguousarray(segment(phantom.image, phantom.affine, "torch", "fp32"))
        parts = (phantom.image, phantom.affine, phantom.infection, mask)
        kept |= {f"{name}: {part}": values for part, values in zip(PARTS, parts, strict=True)}
        found[name] = {
            "image_sha256": digest(phantom.image),
            "mask_sha256": digest(mask),
            "voxels": int(mask.sum()),
            "dice": round(dice(mask, phantom.infection), 6),
        }
    PINNED.write_text(json.dumps(found, indent=2) + "\n")
    np.savez_compressed(MASKS, **kept)


if __name__ == "__main__":
    pin()
