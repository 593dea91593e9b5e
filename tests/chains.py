"""Chains of transforms from configs/train.yaml and its overlays, with other settings."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.transforms import Compose

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@cache
def _loaded(*names: str) -> dict[str, Any]:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in names])
    return parser.config


def chain(wanted: str, *overlays: str, **settings: Any) -> Any:
    """Returns what an id of train.yaml and overlays gives, with settings in place of the files'."""
    parser = ConfigParser(deepcopy(_loaded("train", *overlays)))
    parser.update(settings)
    return parser.get_parsed_content(wanted)


def network_grid(size: int = 256, **settings: Any) -> Compose:
    """From the paths of a case to HU and label at the network's size."""
    return chain("network_grid", spatial_size=size, **settings)


def network_input(**settings: Any) -> Compose:
    """From HU to what the network sees."""
    return chain("network_input", **settings)


def training_input(*overlays: str, **settings: Any) -> Compose:
    """From a slice in HU to what the network is trained on."""
    return chain("train#preprocessing", *overlays, **settings)
