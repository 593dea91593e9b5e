"""Slices out of volumes: the data set that a two-dimensional network trains on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor, get_track_meta, set_track_meta
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm

from ..errors import UserError
from ..files import write_atomic
from ..settings import count, number
from ..transforms.preprocessing import BOX, IMAGE, LABEL, LUNG
from ..transforms.steps import settings
from ..version import bundle_version

SAMPLINGS = ("all", "infected", "balanced")

LEVELS = 255
"""Masks are kept in a byte a pixel; this level is 1."""

Grid = Callable[[dict[str, Any]], Any]
"""From the paths of a case to {"image": HU, "label"}, (1, H, W, Z), at the network's size."""

Stack = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""The slices of one case at the network's size: HU (N, H, W) and mask (N, H, W) in levels."""


class SliceDataset(Dataset[dict[str, torch.Tensor]]):
    """Serves single slices of cases; a case is a volume or a picture.

    The deterministic part of the preprocessing runs once a case, when the data set is built; its
    result stays in memory or, with `cache_dir`, in memory-mapped files that later runs find again.
    The rest runs at every access, with random transforms seeded by (seed, epoch, slice): what is
    served depends neither on the number of workers nor on what was served before, so that a stopped
    training resumes as if nothing had happened.

    Args:
        data: cases with "image" and "label" paths; "slices" restricts a case to these slices
            (counted along the stored third axis), "label_codes", "label_scale" and "intensity" as
            in `datalist.json`.
        grid: the deterministic part, from paths to (1, H, W, Z) in HU (`network_grid` of
            configs/train.yaml).
        transform: what runs on a slice {"image": (1, H, W) HU, "label": (1, H, W)} at every access;
            absent, slices are served in HU.
        sampling: "all" slices; "infected", those with lesion only; "balanced", those with lesion
            and as many of the others, drawn anew every epoch.
        picture_share: share of an epoch that pictures (cases of one slice) make up beside volumes,
            in (0, 1): they are served several times, each time augmented in another way. Without it
            the slices of a few volumes outnumber them by far. Absent, and with one kind alone,
            every slice is served once.
        slices_per_epoch: how many of all these an epoch serves, drawn anew every time; absent, all
            of them.
        cache_dir: where to keep the deterministic part on disk; absent, in memory.
        seed: seed of augmentation and balanced sampling.
        progress: whether to show a progress bar while cases load.

    Raises:
        UserError: for an unknown sampling, a share outside of (0, 1), less than one slice an epoch,
            or a sampling that leaves no slice of non-empty data.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        grid: Grid,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        sampling: str = "all",
        picture_share: float | None = None,
        slices_per_epoch: int | None = None,
        cache_dir: str | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        if sampling not in SAMPLINGS:
            raise UserError(f"sampling is {sampling!r}; expected: {', '.join(SAMPLINGS)}")
        if picture_share is not None:
            wanted = "more than 0, less than 1, or null"
            picture_share = number("picture_share", picture_share, wanted, lambda value: 0 < value < 1)
        if slices_per_epoch is not None:
            slices_per_epoch = count("slices_per_epoch", slices_per_epoch, "a whole number from 1 on, or null")
        self.data = list(data)  # MONAI Label and the bundle's properties look it up by this name
        self.transform = transform
        self.sampling = sampling
        self.picture_share = picture_share
        self.slices_per_epoch = slices_per_epoch
        self.seed = seed
        self.epoch = 0
        self._stacks = load_stacks(self.data, grid, cache_dir, progress)
        self._table = [(case, index) for case, stack in enumerate(self._stacks) for index in range(len(stack[0]))]
        masks = (self._stacks[case][1][index] for case, index in self._table)
        infected = np.array([bool((mask > LEVELS / 2).any()) for mask in masks], dtype=bool)
        self._infected, self._clean = np.flatnonzero(infected), np.flatnonzero(~infected)
        self._picture = np.array([len(self._stacks[case][0]) == 1 for case, _ in self._table], dtype=bool)
        self._served = self._select()
        if self.data and not len(self._served):
            raise UserError(
                f"sampling {sampling!r} leaves no slice of {len(self.data)} cases; expected: lesions, or 'all'"
            )

    def set_epoch(self, epoch: int) -> None:
        """Make what is served that of an epoch: augmentation, and the draw of balanced sampling."""
        self.epoch = epoch
        self._served = self._select()

    def __len__(self) -> int:
        """Return the number of slices an epoch serves."""
        return len(self._served)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return slice `index` of this epoch: "image" (1, H, W), "label" as transformed."""
        case, position = self._table[self._served[index]]
        image, label = self._stacks[case]
        item: dict[str, Any] = {
            IMAGE: torch.from_numpy(np.array(image[position]))[None],
            LABEL: torch.from_numpy(np.array(label[position])).float()[None] / LEVELS,
        }
        if self.transform is None:
            return item
        return transformed(item, self.transform, self._seed(index))

    def _seed(self, index: int) -> int:
        """Return the seed of slice `index` in this epoch, another one each time it is served."""
        served = int(self._served[index])
        turn = index - int(np.searchsorted(self._served, served))  # `_served` is sorted
        return mix_seed(self.seed, self.epoch, served + turn * len(self._table))

    def _select(self) -> NDArray[np.intp]:
        rng = np.random.default_rng(mix_seed(self.seed, self.epoch, -1))
        if self.sampling == "all":
            chosen = np.arange(len(self._table))
        elif self.sampling == "infected":
            chosen = self._infected
        else:
            drawn = min(len(self._infected), len(self._clean))
            picture = self._picture[self._clean]
            pictures = round(drawn * picture.mean()) if drawn else 0  # as many every time, so that epochs are alike
            sizes = ((self._clean[~picture], drawn - pictures), (self._clean[picture], pictures))
            chosen = np.sort(np.concatenate([self._infected, *(rng.choice(*each, replace=False) for each in sizes)]))
        if self.picture_share is not None:
            chosen = self._with_pictures(chosen, self.picture_share, rng)
        if self.slices_per_epoch is not None and self.slices_per_epoch < len(chosen):
            chosen = np.sort(rng.choice(chosen, size=self.slices_per_epoch, replace=False))
        return chosen

    def _with_pictures(self, chosen: NDArray[np.intp], share: float, rng: np.random.Generator) -> NDArray[np.intp]:
        """Repeats the pictures among the chosen slices until they make up their share."""
        pictures, others = chosen[self._picture[chosen]], chosen[~self._picture[chosen]]
        wanted = round(share / (1 - share) * len(others))
        if not len(pictures) or wanted <= len(pictures):
            return chosen
        whole, rest = divmod(wanted, len(pictures))
        drawn = rng.choice(pictures, size=rest, replace=False)
        return np.sort(np.concatenate([others, np.repeat(pictures, whole), drawn]))


def mix_seed(*numbers: int) -> int:
    """One 32-bit seed from several numbers, without the correlations that sums have."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def transformed(item: dict[str, Any], transform: Callable[[dict[str, Any]], Any], seed: int) -> dict[str, Any]:
    """Run a transform of plain tensors whose randomness comes from a seed alone."""
    if hasattr(transform, "set_random_state"):
        transform.set_random_state(seed=seed)
    tracked = get_track_meta()
    set_track_meta(False)  # nobody asks a served slice for its affine, and keeping it takes as long as all else
    try:
        return dict(transform(item))
    finally:
        set_track_meta(tracked)


def load_stacks(
    data: Sequence[Mapping[str, Any]], grid: Grid, cache_dir: str | None = None, progress: bool = True
) -> list[Stack]:
    """Run the deterministic preprocessing on cases, or find what an earlier run kept on disk.

    Args:
        data: see `SliceDataset`.
        grid: see `SliceDataset`.
        cache_dir: see `SliceDataset`.
        progress: whether to show a progress bar.

    Returns:
        The slices of each case, inferior first; those from the disk are mapped into memory and may
        be written to without changing the file.
    """
    bar = tqdm(data, desc="loading cases", unit="case", disable=not progress or len(data) < 2)
    return [_load_stack(case, grid, cache_dir) for case in bar]


def _load_stack(case: Mapping[str, Any], grid: Grid, cache_dir: str | None) -> Stack:
    if cache_dir is None:
        return _build_stack(case, grid)
    folder = Path(cache_dir)
    key = _cache_key(case, grid)
    files = folder / f"{key}.image.npy", folder / f"{key}.label.npy"
    if not all(file.exists() for file in files):
        image, label = _build_stack(case, grid)
        write_atomic(files[0], lambda path: np.save(path, image))
        write_atomic(files[1], lambda path: np.save(path, label))
    return np.load(files[0], mmap_mode="c"), np.load(files[1], mmap_mode="c")


def _build_stack(case: Mapping[str, Any], grid: Grid) -> Stack:
    item = grid(dict(case))
    image, label = item[IMAGE], item.get(LABEL)
    if label is None:
        label = torch.zeros_like(image)
    chosen = chosen_slices(case, image)
    if BOX in item:  # what lies beyond it is not looked at later either
        chosen = chosen[(chosen >= item[BOX][2, 0]) & (chosen < item[BOX][2, 1])]
    # (1, H, W, Z) -> (N, H, W)
    slices = np.ascontiguousarray(np.moveaxis(image.cpu().numpy()[0], -1, 0)[chosen], dtype=np.float32)
    levels = np.rint(label.cpu().numpy()[0] * LEVELS)
    masks = np.ascontiguousarray(np.moveaxis(levels, -1, 0)[chosen], dtype=np.uint8)
    return slices, masks


def chosen_slices(case: Mapping[str, Any], image: MetaTensor) -> NDArray[np.intp]:
    """Return indices along the canonical z axis for "slices" along the stored third axis."""
    depth = image.shape[-1]
    if case.get("slices") is None:
        return np.arange(depth)
    stored = np.asarray(case["slices"], dtype=np.intp)
    direction = nib.aff2axcodes(np.asarray(image.meta["original_affine"]))[2]
    if direction not in "SI" or stored.min() < 0 or stored.max() >= depth:
        raise UserError(
            f"{case[IMAGE]}: slices {stored.min()} to {stored.max()} of {depth} along an axis that points to "
            f"{direction}; expected: existing slices of a volume whose third stored axis is the patient's"
        )
    return np.sort(stored if direction == "S" else depth - 1 - stored)


def _cache_key(case: Mapping[str, Any], grid: Grid) -> str:
    """Return a key that changes with files, the case's settings, preprocessing and version."""
    files = [Path(case[key]).resolve() for key in (IMAGE, LABEL, LUNG) if case.get(key)]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    own = {key: case.get(key) for key in ("intensity", "label_codes", "label_scale", "slices")}
    own |= {"levels": LEVELS, "version": bundle_version()}  # another one may find other lungs
    text = json.dumps([stamps, own, settings(grid)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
