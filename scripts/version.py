"""Where the bundle lies and which version of it this is."""

from __future__ import annotations

import json
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
BUNDLE = PACKAGE if (PACKAGE / "configs").is_dir() else PACKAGE.parent
"""The folder of `configs` and `models`: the package where it is installed, else the folder around
it."""


def bundle_root() -> str:
    """Return the bundle's folder, from which the configs start in any working directory."""
    return str(BUNDLE)


def bundle_version() -> str:
    """Return the version that metadata.json gives."""
    return str(json.loads((BUNDLE / "configs/metadata.json").read_text(encoding="utf-8"))["version"])
