"""What is fuzzed: for each class of inputs a seed on the disk, changes to it, and what reads it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from scripts.__main__ import main
from scripts.data.datalist import read_datalist
from scripts.data.layouts.case import DATALIST
from scripts.finite import load_weights
from scripts.inference.metadata import read_metadata
from scripts.monai_label.request_values import KINDS, check_request
from tests.conftest import write_random_checkpoint
from tests.fuzz import dicom, mutations
from tests.fuzz.scans import read_scans, values

REQUEST = {
    **{"model": "segmentation", "image": "case", "threshold": 0.4, "device": "cpu", "max_epochs": 3},
    **{"label_info": [{"name": "a"}], "result_extension": ".nii.gz", "train_batch_size": 1, "val_split": 0.2},
    **{"strategy": "random", "client_id": "x"},
}


@dataclass(frozen=True)
class Target:
    """A class of inputs.

    `make` writes seeds into a folder; `change` writes one changed input, given the folder of the
    seeds and a new folder; `read` reads what lies there.
    """

    share: float  # of all inputs
    make: Callable[[Path], Any]
    change: Callable[[Path, Path, Random], Any]
    read: Callable[[Path], Any]


def _changed_file(source: Path, place: Path, data: bytes) -> None:
    (place / source.name).write_bytes(data)


def _one_of(seeds: Path, rng: Random) -> Path:
    return rng.choice(sorted(path for path in seeds.iterdir() if path.is_file()))


def make_nifti(seeds: Path) -> None:
    image = nib.Nifti1Image(values(), np.diag([-7.0, -8.0, 5.0, 1.0]))
    image.header.set_xyzt_units("mm")
    for name in ("scan.nii", "scan.nii.gz"):
        nib.save(image, seeds / name)
    nib.save(nib.Nifti2Image(values(), np.diag([-7.0, -8.0, 5.0, 1.0])), seeds / "two.nii.gz")


def change_nifti(seeds: Path, place: Path, rng: Random) -> None:
    source = _one_of(seeds, rng)
    change = mutations.bytes_ if source.name == "two.nii.gz" or rng.random() < 0.3 else mutations.nifti
    inside = source.suffix == ".gz" and rng.random() < 0.8
    change = mutations.packed(change) if inside else change if source.suffix != ".gz" else mutations.bytes_
    _changed_file(source, place, change(source.read_bytes(), rng))


def make_itk(ending: str) -> Callable[[Path], None]:
    def make(seeds: Path) -> None:
        image = sitk.GetImageFromArray(values().T)
        image.SetSpacing((7, 8, 5))
        image.SetOrigin((1, 2, 3))
        for compress in (False, True):
            sitk.WriteImage(image, str(seeds / f"{compress}.{ending}"), useCompression=compress)

    return make


def change_itk(seeds: Path, place: Path, rng: Random) -> None:
    source = _one_of(seeds, rng)
    data = source.read_bytes()
    end = b"\n\n" if source.suffix == ".nrrd" else b"ElementDataFile"
    _changed_file(source, place, mutations.text(data, rng, end) if rng.random() < 0.7 else mutations.bytes_(data, rng))


def make_zip(seeds: Path) -> None:
    dicom.make(seeds / "dicom")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(seeds / f"{method}.zip", "w", method) as archive:
            for file in sorted((seeds / "dicom" / "plain").iterdir()):
                archive.write(file, f"p/{file.name}")
    shutil.rmtree(seeds / "dicom")


def change_zip(seeds: Path, place: Path, rng: Random) -> None:
    source = _one_of(seeds, rng)
    if rng.random() < 0.6:
        data = source.read_bytes()
        directory = data.find(b"PK\x01\x02")
        at_end = data[:directory] + mutations.bytes_(data[directory:], rng)
        _changed_file(source, place, at_end if rng.random() < 0.6 else mutations.bytes_(data, rng))
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(place / source.name, "w") as new:
        for entry in old.infolist():
            name = rng.choice(("../out", "/out", "a\x1b[2J", "x" * 300, "p/0.dcm", "", "a/b/../../c", "é", "con"))
            data = old.read(entry)
            changed = rng.random() < 0.4
            with contextlib.suppress(ValueError, IndexError):
                new.writestr(
                    name if rng.random() < 0.3 else entry.filename, mutations.bytes_(data, rng) if changed else data
                )


def make_pictures(seeds: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 48), np.uint8)
    for name in ("a.png", "b.jpg", "c.bmp"):
        Image.fromarray(grey).save(seeds / name)
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(seeds / "d.png")
    Image.fromarray(grey).convert("P").save(seeds / "e.png")
    Image.fromarray(grey).save(seeds / "f.jpg", progressive=True)


def change_picture(seeds: Path, place: Path, rng: Random) -> None:
    source = _one_of(seeds, rng)
    change = mutations.png if source.suffix == ".png" and rng.random() < 0.7 else mutations.bytes_
    _changed_file(source, place, change(source.read_bytes(), rng))


def make_weights(seeds: Path) -> None:
    write_random_checkpoint(seeds / "model.pt", base_width=4, size=32)


def change_weights(seeds: Path, place: Path, rng: Random) -> None:
    shutil.copytree(seeds, place, dirs_exist_ok=True)
    if rng.random() < 0.8:
        file, change = place / "model.json", mutations.as_json
    else:
        file, change = place / "model.pt", mutations.bytes_
    file.write_bytes(change(file.read_bytes(), rng))


def read_weights(place: Path) -> None:
    load_weights(place / "model.pt")
    read_metadata(place / "model.pt")


def make_datalist(seeds: Path) -> None:
    names = [f"case_{k}" for k in range(4)]
    cases: list[dict[str, Any]] = [
        {"name": name, "patient": name, "image": f"{name}.nii.gz", "label": f"{name}_mask.nii.gz", "fold": k}
        for k, name in enumerate(names)
    ]
    for case in cases:
        for key in ("image", "label"):
            nib.save(nib.Nifti1Image(values(), np.eye(4)), seeds / case[key])
    content = {
        "name": "data",
        "layout": "generic",
        "folds": 4,
        "seed": 0,
        "warnings": [],
        "training": cases,
        "test": [],
    }
    (seeds / DATALIST).write_text(json.dumps(content))


def change_datalist(seeds: Path, place: Path, rng: Random) -> None:
    for path in seeds.iterdir():
        (place / path.name).symlink_to(path) if path.name != DATALIST else None
    (place / DATALIST).write_bytes(mutations.as_json((seeds / DATALIST).read_bytes(), rng))


def change_request(seeds: Path, place: Path, rng: Random) -> None:
    request = mutations.value(dict(rng.sample([*REQUEST.items()], 4)), rng)
    with contextlib.suppress(RecursionError):
        (place / "request.json").write_text(json.dumps([rng.choice([*KINDS]), request]))


def read_request(place: Path) -> None:
    if (place / "request.json").exists():
        check_request(*json.loads((place / "request.json").read_text()))


def make_whole(seeds: Path) -> None:
    for name, make in (("nifti", make_nifti), ("itk", make_itk("mha")), ("pictures", make_pictures)):
        (seeds / name).mkdir()
        make(seeds / name)
    dicom.make(seeds / "dicom")
    make_weights(seeds)


def change_whole(seeds: Path, place: Path, rng: Random) -> None:
    (place / "in").mkdir()
    change_nifti(seeds / "nifti", place / "in", rng)
    change_itk(seeds / "itk", place / "in", rng)
    change_picture(seeds / "pictures", place / "in", rng)
    dicom.change(seeds / "dicom", place / "in", rng)
    (place / "weights").symlink_to(seeds)


def segment(place: Path) -> None:
    """Runs the command; an ending that is none raises AssertionError."""
    output = place.parent / "output"
    words = ["segment", place / "in", output, "--weights", place / "weights" / "model.pt", "--device", "cpu"]
    sys.argv = ["scripts", *map(str, words), "--backend", "torch", "--precision", "fp32", "--views", "1"]
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    assert code in (0, 2, 3), f"exit code {code}"
    assert "Traceback" not in printed.getvalue(), printed.getvalue()
    for case in output.iterdir() if output.exists() else ():
        assert case.name == "manifest.json" or (case / "report.json").is_file(), f"{case.name} is not complete"
    shutil.rmtree(output, ignore_errors=True)


TARGETS: dict[str, Target] = {
    "NIfTI": Target(0.18, make_nifti, change_nifti, read_scans),
    "NRRD": Target(0.12, make_itk("nrrd"), change_itk, read_scans),
    "MetaImage": Target(0.12, make_itk("mha"), change_itk, read_scans),
    "DICOM": Target(0.18, dicom.make, dicom.change, read_scans),
    "node": Target(0.03, dicom.make, dicom.change_sent, dicom.send_to_node),
    "DICOMweb": Target(0.03, dicom.make_answers, dicom.change_answer, dicom.retrieve_study),
    "zip": Target(0.09, make_zip, change_zip, read_scans),
    "picture": Target(0.09, make_pictures, change_picture, read_scans),
    "weights": Target(0.05, make_weights, change_weights, read_weights),
    "data list": Target(0.05, make_datalist, change_datalist, read_datalist),
    "request": Target(0.05, lambda seeds: None, change_request, read_request),
    "segment": Target(0.01, make_whole, change_whole, segment),
}


def shares(number: int, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """How many inputs of a number each class gets, at least one."""
    whole = sum(TARGETS[name].share for name in names)
    for name in names:
        yield name, max(1, round(number * TARGETS[name].share / whole))
