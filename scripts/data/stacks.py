"""Slices of whole cases at the network's size, made in parallel or found on disk."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_numpy
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..errors import UserError, find_user_error
from ..settings import is_distributed
from ..transforms.items import BOX, EDGE, FINER, IMAGE, LABEL, LUNG, SECOND, SOFT, UNKNOWN
from .loaders import cores
from .slice_cache import cache_key, kept

LEVELS = 254
"""Masks are kept in a byte a pixel; this level is 1."""

UNKNOWN_LEVEL = 255

MOST_PROCESSES = 8
"""Cases that are made at a time; each takes some 1 GB for 300 slices of 512 x 512."""

Grid = Callable[[dict[str, Any]], Any]
"""From the paths of a case to {"image": HU, "label"}, (1, H, W, Z), at the network's size; with
"soft" where the case has a teacher's map, "edge" where it has a published one."""

Stack = tuple[NDArray[Any], ...]
"""The slices of one case at the network's size, (N, H, W): HU in float32 and masks in levels, see
`mask_keys`; (N, C, H, W) of a label with several targets."""


def load_stacks(
    data: Sequence[Mapping[str, Any]], grid: Grid, cache_dir: str | None = None, progress: bool = True
) -> list[Stack]:
    """Run the deterministic preprocessing on cases, or find what an earlier run kept on disk.

    Cases are made in as many processes as torch has threads here, at most `MOST_PROCESSES`.

    Args:
        data: see `SliceDataset`.
        grid: see `SliceDataset`.
        cache_dir: see `SliceDataset`.
        progress: whether to show a progress bar.

    Returns:
        The slices of each case, inferior first; those from the disk are mapped into memory and may
        be written to without changing the file.

    Raises:
        UserError: that of a case, or if the system ended one of the processes.
    """
    make = partial(_make, grid=grid, cache_dir=cache_dir)
    threads = cores() if is_distributed() else torch.get_num_threads()  # torchrun sets one thread
    processes = min(len(data), threads, MOST_PROCESSES)
    made = _in_processes(_Cases(data, make), processes) if processes > 1 else map(make, data)
    bar = tqdm(made, desc="loading cases", unit="case", total=len(data), disable=not progress or len(data) < 2)
    return [_opened(one) for one in bar]


def mask_keys(case: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the masks of a stack are: the label, then a soft map and a published edge."""
    return (LABEL, *(key for key in (SOFT, EDGE) if key in case))


def _make(case: Mapping[str, Any], grid: Grid, cache_dir: str | None) -> Stack | list[Path]:
    """Return a case's slices, or the files that hold them."""
    key = None if cache_dir is None else cache_key(case, (IMAGE, LABEL, LUNG, FINER, SECOND, SOFT, EDGE), grid)
    if cache_dir is None or key is None:
        return _build_stack(case, grid)
    return kept(Path(cache_dir) / key, (IMAGE, *mask_keys(case)), lambda: _build_stack(case, grid))


def _opened(made: Stack | list[Path]) -> Stack:
    return tuple(np.load(one, mmap_mode="c") if isinstance(one, Path) else one for one in made)


class _Cases(Dataset[Any]):
    """Serves what is made of a case; a user's mistake as a value.

    Raised in a process of the data loader, its message would become a traceback.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], make: Callable[[Mapping[str, Any]], Any]) -> None:
        self.data, self.make = data, make

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.make(self.data[index])
        except Exception as error:
            mistake = find_user_error(error)
            if mistake is None:
                raise
            return mistake


def _in_processes(cases: _Cases, processes: int) -> Iterator[Any]:
    """Yield what is made of the cases in their order, by several processes."""
    served = DataLoader(cases, batch_size=None, num_workers=processes, collate_fn=_unchanged, prefetch_factor=1)
    try:
        for one in served:
            if isinstance(one, UserError):
                raise one
            yield one
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        found = f"loading cases: the system ended one of {processes} processes, often for lack of memory"
        raise UserError(f"{found}; expected: more memory, or fewer threads (OMP_NUM_THREADS)") from error


def _unchanged(one: Any) -> Any:
    return one


def from_levels(levels: torch.Tensor) -> torch.Tensor:
    """Return masks, float32 in [0, 1] or `UNKNOWN`, from what is kept of them."""
    return torch.where(levels == UNKNOWN_LEVEL, UNKNOWN, levels.float() / LEVELS)


def has_lesion(levels: NDArray[np.uint8]) -> bool:
    """Whether a mask, as it is kept, marks infection that is known."""
    return bool(((levels > LEVELS / 2) & (levels != UNKNOWN_LEVEL)).any())


def _build_stack(case: Mapping[str, Any], grid: Grid) -> Stack:
    item = grid(dict(case))
    image = item[IMAGE]
    if item.get(LABEL) is None:
        item[LABEL] = torch.full_like(image, 0.0 if case.get("lesion_free") else UNKNOWN)
    chosen = chosen_slices(case, image)
    if BOX in item:  # what lies beyond it is not looked at later either
        chosen = chosen[(chosen >= item[BOX][2, 0]) & (chosen < item[BOX][2, 1])]
    # (1, H, W, Z) -> (N, H, W)
    slices = np.ascontiguousarray(np.moveaxis(image.cpu().numpy()[0], -1, 0)[chosen], dtype=np.float32)
    return slices, *(_levels(item[key])[chosen] for key in mask_keys(case))


def _levels(mask: torch.Tensor) -> NDArray[np.uint8]:
    """Return what is kept of masks (1, H, W, Z): (Z, H, W); of several targets (Z, C, H, W)."""
    values = np.moveaxis(mask.cpu().numpy(), -1, 0)
    values = values[:, 0] if values.shape[1] == 1 else values
    return np.where(values == UNKNOWN, UNKNOWN_LEVEL, np.rint(values * LEVELS)).astype(np.uint8, order="C")


def follow_each_other(case: Mapping[str, Any]) -> bool:
    """Whether no slice lies between those that a case is restricted to, if it is to any."""
    chosen = case.get("slices")
    return chosen is None or sorted(chosen) == list(range(min(chosen), max(chosen) + 1))


def chosen_slices(case: Mapping[str, Any], image: MetaTensor) -> NDArray[np.intp]:
    """Return indices along the canonical z axis for "slices" along the stored third axis."""
    depth = image.shape[-1]
    if case.get("slices") is None:
        return np.arange(depth)
    stored = np.asarray(case["slices"], dtype=np.intp)
    direction = nib.aff2axcodes(convert_to_numpy(image.meta["original_affine"]))[2]
    if direction not in "SI" or stored.min() < 0 or stored.max() >= depth:
        raise UserError(
            f"{case[IMAGE]}: slices {stored.min()} to {stored.max()} of {depth} along an axis that points to "
            f"{direction}; expected: existing slices of a volume whose third stored axis is the patient's"
        )
    return np.sort(stored if direction == "S" else depth - 1 - stored)
