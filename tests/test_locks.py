"""The files in locks/: they hold the versions that the constraints pin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def pins(*paths: Path) -> dict[str, str]:
    """Versions by normalised name."""
    text = "\n".join(path.read_text() for path in paths)
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, flags=re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


@pytest.mark.parametrize(
    ("lock", "constraints"),
    [("requirements-dev", "constraints"), ("requirements-monailabel", "constraints-monailabel")],
)
def test_a_lock_holds_the_versions_of_the_constraints(bundle_root: Path, lock: str, constraints: str) -> None:
    locked = pins(*(bundle_root / "locks" / f"{name}.txt" for name in (lock, "torch")))
    pinned = pins(bundle_root / f"{constraints}.txt")
    if lock == "requirements-monailabel":
        pinned.pop("torchvision")  # the build that fits torch's is not on every index
    assert pinned.items() <= locked.items(), "run make locks"


def test_what_runs_has_the_versions_that_are_tested(bundle_root: Path) -> None:
    locks = bundle_root / "locks"
    assert pins(locks / "requirements.txt").items() <= pins(locks / "requirements-dev.txt").items()
