"""Miniature data sets in the layouts of the public ones, built under a test's temporary folder."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

AFFINE = np.array([[-0.7, 0, 0, 120.0], [0, -0.7, 0, 90.0], [0, 0, 5.0, -200.0], [0, 0, 0, 1]])
SHAPE = (6, 5, 4)
ZENODO_NAMES = (
    *(f"coronacases_{number:03d}" for number in range(1, 11)),
    "radiopaedia_10_85902_1",
    "radiopaedia_10_85902_3",
    "radiopaedia_14_85914_0",
    "radiopaedia_27_86410_0",
    "radiopaedia_29_86490_1",
    "radiopaedia_29_86491_1",
    "radiopaedia_36_86526_0",
    "radiopaedia_40_86625_0",
    "radiopaedia_4_85506_1",
    "radiopaedia_7_85703_0",
)


def kaggle_name(name: str) -> str:
    """What the Kaggle copy calls the CT of a Zenodo case."""
    if name.startswith("coronacases"):
        return name.replace("coronacases_", "coronacases_org_")
    return name.replace("radiopaedia_", "radiopaedia_org_covid-19-pneumonia-") + "-dcm"


class Trees:
    """Writes files and whole trees; every method returns the root that a user would name."""

    affine = AFFINE
    shape = SHAPE
    zenodo_names = ZENODO_NAMES
    kaggle_name = staticmethod(kaggle_name)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def volume(self, path: Path, codes: Iterable[int] = (), shape=SHAPE, affine=AFFINE, dtype=np.uint8) -> Path:
        """A volume of zeros with each of `codes` once, in slice 1."""
        values = np.zeros(shape, dtype=dtype)
        for index, code in enumerate(codes):
            values[index, 0, 1] = code
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values, affine), path)
        return path

    def ct(self, path: Path, shape=SHAPE, affine=AFFINE) -> Path:
        """A volume of noise in HU, another for each name; it does not compress to nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(zlib.crc32(path.name.encode())).integers(-1000, 200, shape, dtype=np.int16)
        nib.save(nib.Nifti1Image(values, affine), path)
        return path

    def picture(self, path: Path, codes: Iterable[int] = (), size=(7, 9)) -> Path:
        """A grey picture (height, width) of zeros with each of `codes` once."""
        values = np.zeros(size, dtype=np.uint8)
        for index, code in enumerate(codes):
            values[index, 0] = code
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
        return path

    def zenodo(self, names: Iterable[str] = ZENODO_NAMES, root: str = "zenodo", masks=("Infection", "Lung")) -> Path:
        codes = {"Infection": (1,), "Lung": (1, 2), "Lung_and_Infection": (1, 2, 3)}
        for number, name in enumerate(names):
            image = self.folder / root / "COVID-19-CT-Seg_20cases" / f"{name}.nii.gz"
            self.volume(image, (number, 255)) if name.startswith("radiopaedia") else self.ct(image)
            for mask in masks:
                self.volume(self.folder / root / f"{mask}_Mask" / f"{name}.nii.gz", codes[mask])
        return self.folder / root

    def kaggle(self, names: Iterable[str] = ZENODO_NAMES, nested: bool = False) -> Path:
        root = self.folder / "kaggle"
        lines = ["ct_scan,lung_mask,infection_mask,lung_and_infection_mask"]
        folders = ("ct_scans", "lung_mask", "infection_mask", "lung_and_infection_mask")
        for name in names:
            cells = []
            for folder, code in zip(folders, ((), (1, 2), (1,), (1, 2, 3)), strict=True):
                file = f"{kaggle_name(name) if folder == 'ct_scans' else name}.nii"
                self.volume(root / folder / file / file if nested else root / folder / file, code)
                cells.append(f"../input/covid19-ct-scans/{folder}/{file}")
            lines.append(",".join(cells))
        (root / "metadata.csv").write_text("\n".join(lines) + "\n")
        return root

    def medseg_part1(self, slices: int = 20) -> Path:
        root = self.folder / "medseg1"
        self.ct(root / "tr_im.nii.gz", (6, 5, slices))
        self.volume(root / "tr_mask.nii.gz", (1, 2, 3), (6, 5, slices))
        self.ct(root / "val_im.nii.gz", (6, 5, 3))
        return root

    def medseg_part2(self, cases: int = 9) -> Path:
        root = self.folder / "medseg2"
        for number in range(1, cases + 1):
            self.ct(root / "rp_im" / f"{number}.nii.gz")
            self.volume(root / "rp_msk" / f"{number}.nii.gz", (1, 2, 3))
            self.volume(root / "rp_lung_msk" / f"{number}.nii.gz", (1,))
        return root

    def mosmed(self) -> Path:
        root = self.folder / "COVID19_1110"
        for study, group in enumerate(("CT-0", "CT-0", "CT-1", "CT-1", "CT-1", "CT-4"), start=254):
            self.ct(root / "studies" / group / f"study_{study:04d}.nii.gz")
        for study in (256, 257, 258):
            self.volume(root / "masks" / f"study_{study:04d}_mask.nii.gz", (1,))
        return root

    def uestc(self, parts=("part1", "part2")) -> Path:
        for part in parts:
            for number in range(3):
                self.volume(self.folder / "UESTC-COVID-19" / part / "image" / f"{number}.nii.gz", dtype=np.float32)
                self.volume(self.folder / "UESTC-COVID-19" / part / "label" / f"{number}.nii.gz", (1,))
        return self.folder / "UESTC-COVID-19"

    def challenge(self) -> Path:
        release = self.folder / "challenge" / "COVID-19-20_v2"
        for name in ("A-0003", "A-0011", "A-0011_1"):
            self.ct(release / "Train" / f"volume-covid19-{name}_ct.nii.gz")
            self.volume(release / "Train" / f"volume-covid19-{name}_seg.nii.gz", (1,))
        self.ct(release / "Validation" / "volume-covid19-A-0100_ct.nii.gz")
        self.ct(release.parent / "COVID-19-20_TestSet" / "volume-covid19-A-0200_ct.nii.gz")
        return release.parent

    def semiseg(self, labelled: int = 6, scans: Iterable[str] = ZENODO_NAMES) -> Path:
        root = self.folder / "semiseg" / "Dataset"
        doctor = root / "TrainingSet/LungInfection-Train/Doctor-label"
        for number in range(labelled):
            self.picture(doctor / "Imgs" / f"{number}.jpg", (80, 120))
            self.picture(doctor / "GT" / f"{number}.png", (255,))
            self.picture(doctor / "Edge" / f"{number}.png", (255,))
            classes = self.picture(root / "TrainingSet/MultiClassInfection-Train/GT" / f"{number}.png", (1, 2))
            self._as_palette(classes)
            self.picture(root / "TrainingSet/MultiClassInfection-Train/Prior" / f"{number}.png", (255,))
        for number in range(2):
            self.picture(root / "TestingSet/LungInfection-Test/Imgs" / f"{number}.jpg", (80,))
            self.picture(root / "TestingSet/LungInfection-Test/GT" / f"{number}.png", (255,))
            self.picture(root / "TestingSet/MultiClassInfection-Test/GT" / f"{number}.png", (1, 2))
        for scan in scans:
            name = f"Data-1_{kaggle_name(scan)}_10.jpg"
            self.picture(root / "TrainingSet/LungInfection-Train/Pseudo-label/Imgs" / name, (90,))
        return root.parent

    def pseudo(self, above: str = "published", scans: Iterable[str] = ZENODO_NAMES, labelled: int = 6) -> Path:
        """`Pseudo-label` as the authors of COVID-SemiSeg train on it: soft maps of unlabelled
        slices, and the labelled slices again."""
        root = self.folder / above / "Pseudo-label"
        for stem in [*map(str, range(labelled)), *(f"Data-1_{kaggle_name(scan)}_10" for scan in scans)]:
            self.picture(root / "Imgs" / f"{stem}.jpg", (80, 120))
            self.picture(root / "GT" / f"{stem}.png", (3, 100, 200, 255))
        return root

    def finer(self, names: Iterable[str] = ("coronacases_001", "coronacases_002")) -> Path:
        for name in names:
            self.volume(self.folder / "finer" / "Infection_Mask_256" / f"{name}.nii.gz", (1, 255))
        return self.folder / "finer"

    def negatives(self, scans: Iterable[str] = ("a", "b", "tumour_c"), pictures: int = 2) -> Path:
        for name in scans:
            self.ct(self.folder / "negatives" / "volumes" / f"{name}.nii.gz")
        for number in range(pictures):
            self.picture(self.folder / "negatives" / "slices" / f"normal_{number:03d}.jpg", (90,))
        return self.folder / "negatives"

    @staticmethod
    def _as_palette(path: Path) -> None:
        with Image.open(path) as picture:
            indices = Image.fromarray(np.asarray(picture)).convert("P")
        indices.putdata(np.asarray(Image.open(path)).ravel().tolist())
        indices.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        indices.save(path)

    def paper(self) -> Path:
        root = self.folder / "data" / "COVID19"
        for part, count in (("train", 6), ("val", 2)):
            for number in range(count):
                self.picture(root / part / "image" / f"{part}{number}.png", (90,))
                self.picture(root / part / "mask" / f"{part}{number}.png", (1,))
                self.picture(root / part / "mask_" / f"{part}{number}.png", (255,))
        return root

    def cares(self) -> Path:
        root = self.folder / "cares"
        for part, count in (("Train", 6), ("Test", 2)):
            for number in range(count):
                self.picture(root / f"{part}-Image" / f"{number}.png", (90,))
                self.picture(root / f"{part}-Mask" / f"{number}.png", (255,))
        for name in ("0", "Data-1_coronacases_org_001_10"):
            self.picture(root / "Unlabeled" / f"{name}.jpg", (90,))
        return root

    def generic(self, names: Iterable[str] = ("a", "b", "c", "d", "e"), root: str = "generic") -> Path:
        for name in names:
            self.ct(self.folder / root / "images" / f"{name}.nii.gz")
            self.volume(self.folder / root / "labels" / f"{name}.nii.gz", (1,))
        return self.folder / root


@pytest.fixture
def trees(tmp_path):
    return Trees(tmp_path)
