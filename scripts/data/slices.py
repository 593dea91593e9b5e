"""Slices out of volumes: the data set that a two-dimensional network trains on."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..errors import UserError
from ..settings import amount, count, number
from ..transforms.items import IMAGE, SLAB
from .loaders import place_stacks
from .sampling import SAMPLINGS, SliceMix, balanced, kind_of, with_pictures
from .stacks import Grid, follow_each_other, from_levels, has_lesion, load_stacks, mask_keys

CHEST_MM = 300.0
"""Height of a chest, which tells how thick the slices of a volume are where its header does not."""


class SliceDataset(Dataset[dict[str, torch.Tensor]]):
    """Serves single slices of cases; a case is a volume or a picture.

    The deterministic part of the preprocessing runs once a case, when the data set is built, see
    `load_stacks`; its result stays in memory or, with `cache_dir`, in memory-mapped files that
    later runs find again.
    The rest runs at every access, with random transforms seeded by (seed, epoch, slice): what is
    served depends neither on the number of workers nor on what was served before, so that a stopped
    training resumes as if nothing had happened.

    Args:
        data: cases with "image" and "label" paths; without a label the mask is 0 if the case is
            "lesion_free", else `UNKNOWN`. "soft" is a teacher's map of probabilities, "soft_scale"
            its value that stands for 1. "slices" restricts a case to these slices (counted along
            the stored third axis), "label_codes", "label_scale" and "intensity" as in
            `datalist.json`.
        grid: the deterministic part, from paths to (1, H, W, Z) in HU (`network_grid` of
            configs/train.yaml).
        transform: what runs on a slice {"image": (1, H, W) HU, "label": (1, H, W)} at every access,
            with "soft" and "edge" (1, H, W) where there are any; absent, slices are served in HU.
        sampling: "all" slices; "infected", those with lesion only; "balanced", those with lesion
            and as many of the others, drawn anew every epoch.
        picture_share: share of an epoch that pictures (cases of one slice) make up beside volumes,
            in (0, 1): they are served several times, each time augmented in another way. Without it
            the slices of a few volumes outnumber them by far. Absent, and with one kind alone,
            every slice is served once.
        slice_mix: how much of an epoch the slices of each kind make up, see `SliceMix`; in place of
            `sampling` and `picture_share`, with `slices_per_epoch`.
        slices_per_epoch: how many of all these an epoch serves, drawn anew every time; absent, all
            of them.
        slab_mm: the transform gets a slice between its neighbours as "slab" (2 r + 1, H, W), whose
            outermost centres lie at most so far apart, where slices are thin enough and follow each
            other; 0: none.
        cache_dir: where to keep the deterministic part on disk; absent, in memory.
        seed: seed of augmentation and balanced sampling.
        device: where slices lie and are transformed, if they fit, see `place_stacks`.
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
        slice_mix: Mapping[str, float] | None = None,
        slab_mm: float = 0.0,
        cache_dir: str | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        progress: bool = True,
    ) -> None:
        if sampling not in SAMPLINGS:
            raise UserError(f"sampling is {sampling!r}; expected: {', '.join(SAMPLINGS)}")
        if picture_share is not None:
            wanted = "more than 0, less than 1, or null"
            picture_share = number("picture_share", picture_share, wanted, lambda value: 0 < value < 1)
        if slices_per_epoch is not None:
            slices_per_epoch = count("slices_per_epoch", slices_per_epoch, "a whole number from 1 on, or null")
        if slice_mix is not None and slices_per_epoch is None:
            raise UserError("slice_mix is set without slices_per_epoch; expected: the number of slices of an epoch")
        self.slab_mm = amount("slab_mm", slab_mm, "millimetres, 0 or more")
        self.data = list(data)  # MONAI Label and the bundle's properties look it up by this name
        self.transform = transform
        self.sampling = sampling
        self.picture_share = picture_share
        self.slices_per_epoch = slices_per_epoch
        self.seed = seed
        self.epoch = 0
        self._stacks = load_stacks(self.data, grid, cache_dir, progress)
        self.device = torch.device(device)
        self._placed = None if self.device.type == "cpu" else place_stacks(self._stacks, self.device)
        if self._placed is None:
            self.device = torch.device("cpu")
        self._reach = [
            int(self.slab_mm / 2 * len(stack[0]) / CHEST_MM) if follow_each_other(case) else 0
            for case, stack in zip(self.data, self._stacks, strict=True)
        ]
        self._table = [(case, index) for case, stack in enumerate(self._stacks) for index in range(len(stack[0]))]
        masks = (self._stacks[case][1][index] for case, index in self._table)
        infected = np.array([has_lesion(mask) for mask in masks], dtype=bool)
        self._infected, self._clean = np.flatnonzero(infected), np.flatnonzero(~infected)
        self._picture = np.array([len(self._stacks[case][0]) == 1 for case, _ in self._table], dtype=bool)
        self._mix: SliceMix | None = None
        if slice_mix is not None:
            rows = zip(self._table, infected, self._picture, strict=True)
            kinds = [kind_of(self.data[case], *flags) for (case, _), *flags in rows]
            self._mix = SliceMix(slice_mix, kinds, [case for case, _ in self._table])
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
        return self.serve(index)

    def serve(self, index: int, turn: int = 0) -> dict[str, Any]:
        """Return slice `index` of this epoch, augmented in another way in every turn."""
        case, position = self._table[self._served[index]]
        if self._placed is None:
            image, *masks = (torch.from_numpy(np.array(stack[position])) for stack in self._stacks[case])
        else:
            image, *masks = (stack[position].clone() for stack in self._placed[case])
        named = zip(mask_keys(self.data[case]), masks, strict=True)
        item: dict[str, Any] = {IMAGE: image[None], **{key: from_levels(mask)[None] for key, mask in named}}
        if self.transform is None:
            return item
        if reach := self._reach[case]:
            item[SLAB] = self._neighbours(case, position, reach)
        return transformed(item, self.transform, self._seed(index, turn))

    def _neighbours(self, case: int, position: int, reach: int) -> torch.Tensor:
        """Return a slice between its neighbours (2 reach + 1, H, W), at the ends repeated."""
        images = self._stacks[case][0] if self._placed is None else self._placed[case][0]
        chosen = np.clip(np.arange(position - reach, position + reach + 1), 0, len(images) - 1)
        return torch.as_tensor(images[chosen])

    def _seed(self, index: int, turn: int) -> int:
        """Return the seed of slice `index` in this epoch, another one each time it is served."""
        served = int(self._served[index])
        again = index - int(np.searchsorted(self._served, served))  # `_served` is sorted
        return mix_seed(self.seed, self.epoch, served + (again + turn * len(self)) * len(self._table))

    def _select(self) -> NDArray[np.intp]:
        rng = np.random.default_rng(mix_seed(self.seed, self.epoch, -1))
        if self._mix is not None and self.slices_per_epoch is not None:
            return self._mix.draw(self.slices_per_epoch, rng)
        if self.sampling == "all":
            chosen = np.arange(len(self._table))
        elif self.sampling == "infected":
            chosen = self._infected
        else:
            chosen = balanced(self._infected, self._clean, self._picture, rng)
        if self.picture_share is not None:
            chosen = with_pictures(chosen, self._picture, self.picture_share, rng)
        if self.slices_per_epoch is not None and self.slices_per_epoch < len(chosen):
            chosen = np.sort(rng.choice(chosen, size=self.slices_per_epoch, replace=False))
        return chosen


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
