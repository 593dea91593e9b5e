"""Name what the items of a workflow hold: their keys, and the codes of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IMAGE = "image"
LABEL = "label"
PRIOR = "prior"
LUNG = "lung"
FINER = "finer"
SECOND = "second"
SOFT = "soft"
EDGE = "edge"
SLAB = "slab"
BOX = "box"
ZONES = "zones"
PRED = "pred"

CLASSES = ("background", "ground_glass", "consolidation")
"""Classes by their number in a multi-class label."""

CLASS_CODES = {0: 0, 1: 1, 2: 2, 38: 1, 75: 2}
"""Stored values of a multi-class label and their class. COVID-SemiSeg has palette pictures with the
indices 0, 1, 2; converted to grey, their dark red and dark green become 38 and 75."""

UNKNOWN = -1.0
"""What a mask of infection holds where nobody knows; the loss leaves it out."""

UNKNOWN_CODE = 255
"""What the file of a finer mask holds there."""

CODE_TOLERANCE = 1e-3
"""How far a stored value may lie from its code: resampling and slopes such as 1/255 leave 0.9999999
for 1."""


def scan_name(item: Mapping[Any, Any]) -> str:
    """Return the file that an item of a workflow was read from, or what the data list calls it."""
    meta = getattr(item.get(IMAGE), "meta", {})
    return str(meta.get("filename_or_obj") or item.get("name") or "a case")
