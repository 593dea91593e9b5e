"""Slow, obvious float64 arithmetic that the network tests compare against,
and one thread to run them on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


def _sources(n_in: int, n_out: int) -> list[tuple[int, int, float]]:
    """For each output index its two input indices and the weight of the second (half-pixel
    centres)."""
    sources = []
    for k in range(n_out):
        position = max((k + 0.5) * n_in / n_out - 0.5, 0.0)
        low = min(int(position), n_in - 1)
        sources.append((low, min(low + 1, n_in - 1), position - low))
    return sources


def _upsample(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize of (B, C, h, w) to (B, C, *size), align_corners=False,
    one output pixel at a time."""
    out = np.empty((*array.shape[:2], *size))
    rows, columns = _sources(array.shape[2], size[0]), _sources(array.shape[3], size[1])
    for i, (top, bottom, u) in enumerate(rows):
        for j, (left, right, v) in enumerate(columns):
            upper = (1 - v) * array[:, :, top, left] + v * array[:, :, top, right]
            lower = (1 - v) * array[:, :, bottom, left] + v * array[:, :, bottom, right]
            out[:, :, i, j] = (1 - u) * upper + u * lower
    return out


def _conv(array: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Stride-1 "same" convolution of (B, C, H, W) by (O, C, k, k), zero padding,
    one pixel at a time."""
    reach = weight.shape[-1] // 2
    padded = np.pad(array, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    out = np.empty((array.shape[0], weight.shape[0], *array.shape[2:]))
    for i in range(array.shape[2]):
        for j in range(array.shape[3]):
            patch = padded[:, :, i : i + 2 * reach + 1, j : j + 2 * reach + 1]
            out[:, :, i, j] = np.einsum("bcij,ocij->bo", patch, weight) + bias
    return out


@pytest.fixture(scope="module", autouse=True)
def narrow(one_thread: None) -> None:
    """Narrow networks on small images are faster on one thread,
    by far where the cores are shared."""


@pytest.fixture(scope="session")
def numpy_upsample() -> Callable[[np.ndarray, tuple[int, int]], np.ndarray]:
    return _upsample


@pytest.fixture(scope="session")
def numpy_conv() -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    return _conv
