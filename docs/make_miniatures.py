"""Write phantoms in the trees of public data sets, to try a command whose data one does not have.

Run from the bundle root:

    python docs/make_miniatures.py OUT [--size 48] [--slices 8]

OUT receives a folder for each data set, named as docs/reproduction.md names them. The volumes are
synthetic and small, so figures measured on them say nothing; scans that two data sets share are the
same phantom under both names.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.data.phantom.scan import make_phantom
from scripts.errors import UserError, ended_by_mistakes
from scripts.transforms.labels import inner_edge

SPACING = (6.0, 6.0, 30.0)  # mm, so that few voxels hold a chest
WINDOW = (-1250, 250)  # HU that 0 and 255 of the pictures stand for
UESTC_WINDOW = (-1400, 100)
CORONACASES = [f"coronacases_{number:03d}" for number in range(1, 11)]
RADIOPAEDIA = ["4_85506_1", "7_85703_0", "10_85902_1", "10_85902_3", "14_85914_0", "27_86410_0", "29_86490_1",
               "29_86491_1", "36_86526_0", "40_86625_0"]  # fmt: skip


class Trees:
    """Writes phantoms by their number, each the same in every tree."""

    def __init__(self, out: Path, size: int, slices: int) -> None:
        self.out = out
        self.phantom = cache(lambda number: make_phantom(number, (size, size, slices), SPACING))

    def volume(self, name: str, values: NDArray[Any], number: int) -> Path:
        """Write an array on the grid of a phantom."""
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values, self.phantom(number).affine), path)
        return path

    def pair(self, image: str, label: str, number: int) -> None:
        """Write the CT of a phantom and its infection."""
        one = self.phantom(number)
        self.volume(image, one.image.astype(np.int16), number)
        self.volume(label, one.infection.astype(np.uint8), number)

    def picture(self, name: str, values: NDArray[np.uint8]) -> None:
        """Write a grey picture."""
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)

    def pictures(self, number: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]]:
        """Return grey values, mask and edge (0, 255) of the infected slices of a phantom."""
        one = self.phantom(number)
        grey = (np.clip((one.image - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1) * 255).astype(np.uint8)
        found = []
        for z in np.flatnonzero(one.infection.any(axis=(0, 1))):
            mask = one.infection[..., z].T > 0
            edge = inner_edge(_tensor(mask))[0, 0].cpu().numpy() > 0
            found.append((grey[..., z].T.copy(), mask.astype(np.uint8) * 255, edge.astype(np.uint8) * 255))
        return found


def _tensor(mask: NDArray[np.bool_]) -> Any:
    import torch

    return torch.from_numpy(mask.copy()).float()[None, None]


def zenodo(trees: Trees) -> None:
    """The twenty volumes of Zenodo 3757476 and, as kaggle/, their copy: COVID-ChestCT."""
    rows = ["ct_scan,lung_mask,infection_mask,lung_and_infection_mask"]
    for number, name in enumerate([*CORONACASES, *(f"radiopaedia_{one}" for one in RADIOPAEDIA)]):
        trees.pair(f"zenodo/COVID-19-CT-Seg_20cases/{name}.nii.gz", f"zenodo/Infection_Mask/{name}.nii.gz", number)
        trees.volume(f"zenodo/Lung_Mask/{name}.nii.gz", trees.phantom(number).lungs.astype(np.uint8), number)
        copy = name.replace("coronacases_", "coronacases_org_")
        trees.pair(f"kaggle/ct_scans/{copy}.nii", f"kaggle/infection_mask/{name}.nii", number)
        rows.append(f"../input/x/ct_scans/{copy}.nii,,../input/x/infection_mask/{name}.nii,")
    (trees.out / "kaggle/metadata.csv").write_text("\n".join(rows) + "\n")


def medseg(trees: Trees) -> None:
    """Part 1, a stack of slices; part 2, the radiopaedia volumes but one under numbers."""
    parts = [trees.phantom(number) for number in range(100, 103)]
    for name, key in (("tr_im", "image"), ("tr_mask", "infection")):
        stack = np.concatenate([getattr(one, key) for one in parts], axis=2)
        trees.volume(f"medseg1/{name}.nii.gz", stack.astype(np.int16 if key == "image" else np.uint8), 100)
    for number in range(1, 10):
        trees.pair(f"medseg2/rp_im/{number}.nii.gz", f"medseg2/rp_msk/{number}.nii.gz", 9 + number)


def others(trees: Trees) -> None:
    """MosMedData, UESTC-COVID-19 and COVID-19-20, six volumes each."""
    low, high = UESTC_WINDOW
    for index in range(6):
        trees.pair(
            f"mosmed/studies/CT-1/study_{255 + index:04d}.nii.gz",
            f"mosmed/masks/study_{255 + index:04d}_mask.nii.gz",
            200 + index,
        )
        uestc = trees.phantom(300 + index)
        scaled = np.clip((uestc.image - low) / (high - low), 0, 1).astype(np.float32)
        trees.volume(f"uestc/part2/image/{index}.nii.gz", scaled, 300 + index)
        trees.volume(f"uestc/part2/label/{index}.nii.gz", uestc.infection.astype(np.uint8), 300 + index)
        name = f"challenge/COVID-19-20_v2/Train/volume-covid19-A-{index:04d}"
        trees.pair(f"{name}_ct.nii.gz", f"{name}_seg.nii.gz", 400 + index)


def pictures(trees: Trees) -> None:
    """The PNG trees of the codes of ResUNet (with edges) and of CARes-UNet."""
    for number in range(500, 506):
        test = number > 503
        for z, (image, mask, edge) in enumerate(trees.pictures(number)):
            name = f"{number}_{z}.png"
            for folder, values in (("image", image), ("mask", mask), ("mask_", edge)):
                trees.picture(f"resunet_png/{'val' if test else 'train'}/{folder}/{name}", values)
            trees.picture(f"cares_png/{'Test' if test else 'Train'}-Image/{name}", image)
            trees.picture(f"cares_png/{'Test' if test else 'Train'}-Mask/{name}", mask)
            trees.picture(f"cares_png/Unlabeled/{name}", image[:, ::-1].copy())


def pseudo_labels(trees: Trees) -> None:
    """Pseudo-label/ of COVID-SemiSeg, soft maps beside their pictures."""
    for number in range(600, 603):
        for z, (image, mask, _) in enumerate(trees.pictures(number)):
            soft = Image.fromarray(mask).filter(ImageFilter.GaussianBlur(2))
            trees.picture(f"pseudo/Pseudo-label/Imgs/{number}_{z}.png", image)
            trees.picture(f"pseudo/Pseudo-label/GT/{number}_{z}.png", np.asarray(soft))


def main(out: str, size: int = 48, slices: int = 8) -> None:
    """Write all trees; refuse a folder that holds something."""
    target = Path(out)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: is not empty; expected: a new folder")
    trees = Trees(target, size, slices)
    for write in (zenodo, medseg, others, pictures, pseudo_labels):
        write(trees)
    print(f"{target}: {', '.join(sorted(path.name for path in target.iterdir()))}")


if __name__ == "__main__":
    with ended_by_mistakes():
        fire.Fire(main)
