"""Volumes, and patches out of them: the data sets of networks that see volumes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import RandCropByPosNegLabeld, SpatialPad, map_binary_to_indices
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from ..settings import count
from ..transforms.geometry import SIZE_STEP
from ..transforms.items import IMAGE, LABEL
from ..transforms.slice_input import OUTSIDE_HU
from .slices import mix_seed, transformed
from .stacks import LEVELS, UNKNOWN_LEVEL, Grid, follow_each_other, from_levels, load_stacks

INFECTED, CLEAN = "infected_voxels", "clean_voxels"
CENTRES = 2**18
"""How many voxels of a volume, of either kind, are kept to choose patches around: 2 MB."""


class VolumeDataset(Dataset[dict[str, Tensor]]):
    """Serves the whole volume of each case, for validation.

    The grid may give several targets, see `AppendLungsd`: labels then have as many channels.

    Args:
        data, grid, cache_dir, progress: see `SliceDataset`.
        transform: from HU to what the network sees, on {"image": (1, H, W, D) HU, "label": (C, H,
            W, D)}.

    Raises:
        UserError: for a case of slices that do not follow each other, or a second target that no
            case has.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        grid: Grid,
        transform: Callable[[dict[str, Any]], Any],
        cache_dir: str | None = None,
        progress: bool = True,
    ) -> None:
        self.data = list(data)  # the bundle's properties look it up by this name
        for case in self.data:
            if not follow_each_other(case):
                raise UserError(
                    f"{case[IMAGE]}: {len(case['slices'])} slices with gaps between them; expected: whole volumes, or "
                    "slices that follow each other (a network for slices takes any)"
                )
        self.transform = transform
        self._stacks = load_stacks(self.data, grid, cache_dir, progress)
        several = [label for _, label in self._stacks if label.ndim == 4]
        if several and all((label[:, 1] == UNKNOWN_LEVEL).all() for label in several):
            raise UserError(f'none of {len(several)} volumes has lungs; expected: "lung", a mask, in datalist.json')

    @property
    def slices(self) -> int:
        """How many slices the volumes have together."""
        return sum(len(image) for image, _ in self._stacks)

    def __len__(self) -> int:
        """Return the number of volumes."""
        return len(self._stacks)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return volume `index`: "image", (1, H, W, D), and "label", (C, H, W, D)."""
        image, label = self._stacks[index]
        stacks = {IMAGE: torch.from_numpy(image)[None], LABEL: _targets_first(label)}
        return transformed(_slices_last(stacks), self.transform, seed=0)


class PatchDataset(VolumeDataset):
    """Serves patches of volumes, half of them around infected voxels and half around others.

    The volumes are read and brought to the network's grid once, when the data set is built
    (`SliceDataset` does the same with slices). Which patch is served is a function of (seed, epoch,
    index), so that neither the number of workers nor a resumed run changes it.

    Args:
        data, grid, transform, cache_dir, progress: see `VolumeDataset`.
        patch_size: columns, rows, slices of a patch; smaller volumes are padded with `OUTSIDE_HU`.
        patches_per_volume: how many patches of each volume an epoch has.
        seed: seed of the choice of patches.

    Raises:
        UserError: for a patch size that the networks cannot take, or no number of patches from 1.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        grid: Grid,
        transform: Callable[[dict[str, Any]], Any],
        patch_size: Sequence[int] | int,
        patches_per_volume: int = 1,
        cache_dir: str | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        sizes: list[Any] = list(patch_size) if isinstance(patch_size, Sequence) else []
        whole = [isinstance(size, int) and size > 0 for size in sizes] == [True] * 3
        if not whole or sizes[0] % SIZE_STEP or sizes[1] % SIZE_STEP:
            expected = f"columns and rows that are multiples of {SIZE_STEP}, and slices"
            raise UserError(f"patch_size is {patch_size!r}; expected: {expected}")
        per_volume = count("patches_per_volume", patches_per_volume)
        super().__init__(data, grid, transform, cache_dir, progress)
        self.patches_per_volume = per_volume
        self.seed = seed
        self.epoch = 0
        stack_size = (sizes[2], sizes[0], sizes[1])  # slices first: a crop of a view would copy the volume
        self.crop = RandCropByPosNegLabeld(
            (IMAGE, LABEL), LABEL, stack_size, pos=1, neg=1, fg_indices_key=INFECTED, bg_indices_key=CLEAN
        )
        self._padded = [_padded(image, label, stack_size) for image, label in self._stacks]

    def set_epoch(self, epoch: int) -> None:
        """Make the patches those of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of patches an epoch serves."""
        return len(self._padded) * self.patches_per_volume

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return patch `index` of this epoch: "image" and "label", (C, columns, rows, slices)."""
        seed = mix_seed(self.seed, self.epoch, index)
        self.crop.set_random_state(seed=seed)
        (patch,) = self.crop(self._padded[index // self.patches_per_volume])
        return transformed(_slices_last(patch), self.transform, seed)


def _targets_first(label: np.ndarray[Any, Any]) -> Tensor:
    """Labels (C, D, H, W) from those of a stack, (D, H, W) or (D, C, H, W)."""
    stored = torch.from_numpy(label)
    return stored[None] if stored.ndim == 3 else stored.movedim(1, 0)


def _slices_last(stacks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reorder (C, D, H, W) to (C, H, W, D), as networks expect; labels in [0, 1] or `UNKNOWN`."""
    image, label = (torch.movedim(stacks[key].as_subclass(Tensor), 1, -1).contiguous() for key in (IMAGE, LABEL))
    return {IMAGE: image.float(), LABEL: from_levels(label)}


def _padded(image: np.ndarray[Any, Any], label: np.ndarray[Any, Any], size: Sequence[int]) -> dict[str, Tensor]:
    """A volume of at least a patch, (C, D, H, W), with the voxels that patches may lie around."""
    volume = SpatialPad(size, value=OUTSIDE_HU)(torch.from_numpy(image)[None]).as_tensor()
    mask = SpatialPad(size)(_targets_first(label)).as_tensor()
    infected, clean = map_binary_to_indices(mask[:1] > LEVELS / 2, volume, image_threshold=OUTSIDE_HU)
    rng = np.random.default_rng(0)  # any voxels do, but the same in every run
    chosen = [
        torch.from_numpy(rng.choice(voxels.cpu().numpy(), CENTRES, replace=False)) if len(voxels) > CENTRES else voxels
        for voxels in (infected, clean)
    ]
    return {IMAGE: volume, LABEL: mask, INFECTED: chosen[0], CLEAN: chosen[1]}
