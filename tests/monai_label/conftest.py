"""Weights to deploy: a narrow network as initialised, whose masks hold about half of the voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts.cards import write_checkpoint
from scripts.networks.registry import create_network

PREPROCESSING = {"size": 64, "window": [-1250, 250], "intensity": "auto"}


def write_random_checkpoint(path: Path, seed: int = 0, base_width: int = 4, **card: object) -> Path:
    torch.manual_seed(seed)
    network = create_network("resunet", base_width=base_width)
    content = {"data": {"name": "phantom", "synthetic": True}, "figures": {}, **card}
    write_checkpoint(path, network.state_dict(), network=network.spec, preprocessing=PREPROCESSING, **content)
    return path


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[..., Path]:
    """Writes weights and their card."""
    return write_random_checkpoint
