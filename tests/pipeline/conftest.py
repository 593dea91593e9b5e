"""What several tests of the pipeline share."""

from __future__ import annotations

import pytest


@pytest.fixture
def graded_whatever_lies_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is not trained: it marks much outside of the lungs, which takes every score."""
    monkeypatch.setattr("scripts.report.wording.MUCH_OUTSIDE_PERCENT", 101)
