from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data import slice_cache
from scripts.data.datalist import select_cases
from scripts.data.slice_cache import cache_folder, cache_key
from scripts.data.stacks import chosen_slices, load_stacks
from scripts.errors import UserError
from scripts.files import CACHE
from tests.chains import network_grid

MakeDataset = Callable[..., Path]


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("cached", [True, False])
def test_processes_make_what_one_makes(
    cached: bool, make_dataset: MakeDataset, tmp_path: Path, two_threads: None
) -> None:
    cases, grid = select_cases(make_dataset(cases=5), "all"), network_grid(size=32)
    together = load_stacks(cases, grid, str(tmp_path / "cache") if cached else None)
    torch.set_num_threads(1)
    for first, second in zip(together, load_stacks(cases, grid), strict=True):
        for one, other in zip(first, second, strict=True):
            assert isinstance(one, np.memmap) is cached
            np.testing.assert_array_equal(one, other)


def test_a_mistake_in_a_process_is_one_line(make_dataset: MakeDataset, two_threads: None) -> None:
    cases = select_cases(make_dataset(cases=3), "all")
    Path(cases[1]["image"]).write_bytes(b"no scan")
    with pytest.raises(UserError, match=r"case_01\.nii\.gz") as error:
        load_stacks(cases, network_grid(size=32))
    assert "\n" not in str(error.value)


def ended(case: dict[str, object]) -> object:
    os._exit(9)


def test_a_process_that_the_system_ends_is_a_line(make_dataset: MakeDataset, two_threads: None) -> None:
    with pytest.raises(UserError, match="often for lack of memory; expected: more memory"):
        load_stacks(select_cases(make_dataset(cases=3), "all"), ended)


def test_a_folder_that_cannot_be_written_costs_the_cache_only(make_dataset: MakeDataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cases, grid = select_cases(make_dataset(cases=1), "all"), network_grid(size=32)
    ((image, _),) = load_stacks(cases, grid, str(tmp_path / "file"))
    np.testing.assert_array_equal(image, load_stacks(cases, grid)[0][0])


def test_where_slices_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    assert cache_folder("auto") == str(tmp_path / "slices")
    assert cache_folder("null") is None
    assert cache_folder("/elsewhere") == "/elsewhere"
    monkeypatch.setenv(CACHE, "off")
    assert cache_folder("auto") is None


def test_what_was_used_longest_ago_leaves_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    for age, name in enumerate("abcd"):
        entry = tmp_path / "slices" / name
        entry.mkdir(parents=True)
        (entry / "image.npy").write_bytes(b"0" * 100)
        os.utime(entry, (1000 - age, 1000 - age))
    monkeypatch.setattr(slice_cache, "MOST_BYTES", 250)
    cache_folder("auto")
    assert {path.name for path in (tmp_path / "slices").iterdir()} == {"a", "b"}


def test_a_key_follows_the_files_behind_a_header_and_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("voxels.raw", "scan.raw"):
        (tmp_path / name).write_text("1")
    (tmp_path / "scan.mhd").write_text("NDims = 3\nDimSize = 1 1 1\nElementDataFile = voxels.raw\n")
    case, keys = {"image": str(tmp_path / "scan.mhd")}, []
    for change in (None, "voxels.raw", "scan.raw"):
        if change:
            (tmp_path / change).write_text("12")
        keys.append(cache_key(case, ["image"], []))
    assert keys[0] != keys[1] == keys[2]
    monkeypatch.setattr(slice_cache, "code_digest", lambda *rooms: "other")
    keys.append(cache_key(case, ["image"], []))
    assert len(set(keys)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", str(key)) for key in keys)
    assert cache_key(case, ["image"], [object()]) is None


def test_a_key_says_which_mask_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "mask.nii.gz").write_text("1")
    roles = ("label", "finer", "second")
    keys = {cache_key({role: str(tmp_path / "mask.nii.gz")}, roles, []) for role in roles}
    assert len(keys) == 3


def test_slices_are_chosen_by_an_affine_on_any_device(device: str) -> None:
    affine = torch.eye(4, device=device)
    image = MetaTensor(torch.zeros(1, 2, 2, 5), meta={"original_affine": affine})
    assert chosen_slices({"image": "scan", "slices": [3, 1]}, image).tolist() == [1, 3]
    affine[2, 2] = -1
    assert chosen_slices({"image": "scan", "slices": [4, 1]}, image).tolist() == [0, 3]
