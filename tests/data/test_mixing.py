from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader

from scripts.data.datalist import select_cases
from scripts.data.mixing import PairedSlices
from scripts.data.slices import SliceDataset
from scripts.data.stacks import LEVELS
from scripts.errors import UserError
from tests.chains import network_grid, training_input


@pytest.fixture
def parts(make_dataset: Callable[..., Path]) -> tuple[SliceDataset, SliceDataset]:
    cases = select_cases(make_dataset(cases=3), "all")
    grid, transform = network_grid(size=32), training_input()
    return SliceDataset(cases[:1], grid, transform), SliceDataset(cases[1:], grid, transform)


def test_every_batch_holds_as_many_of_both_kinds(parts: tuple[SliceDataset, SliceDataset]) -> None:
    labelled, pseudo = parts
    paired = PairedSlices(labelled, pseudo)
    assert len(paired) == len(labelled) == 6
    known = [labelled[i]["image"] for i in range(6)]
    for batch in DataLoader(paired, batch_size=2):
        assert batch["image"].shape == (4, 1, 32, 32)
        assert batch["label"].shape == (4, 2, 32, 32)
        ours = [any(torch.equal(image, other) for other in known) for image in batch["image"]]
        assert ours == [True, False, True, False]


def test_every_pseudo_slice_comes_once_a_round_in_another_order(parts: tuple[SliceDataset, SliceDataset]) -> None:
    labelled, pseudo = parts
    paired = PairedSlices(labelled, pseudo, seed=3)
    images = [pseudo[i]["image"] for i in range(len(pseudo))]

    def served(epoch: int) -> list[int]:
        paired.set_epoch(epoch)
        pairs = [paired[i][1]["image"] for i in range(len(paired))]
        return [next(k for k, image in enumerate(images) if torch.equal(image, one)) for one in pairs]

    first, second = served(1) + served(2), served(3) + served(4)  # 12 slices, 6 an epoch
    assert set(Counter(first).values()) == set(Counter(second).values()) == {1}
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert served(1) == first[:6]  # a resumed run repeats an epoch


def test_a_pseudo_slice_that_comes_again_in_an_epoch_is_augmented_anew(make_dataset: Callable[..., Path]) -> None:
    cases, grid = select_cases(make_dataset(cases=3), "all"), network_grid(size=32)
    pseudo = SliceDataset(cases[:1], grid, training_input(augment=True))
    paired = PairedSlices(SliceDataset(cases[1:], grid, training_input()), pseudo)
    paired.set_epoch(2)
    images = [pair[1]["image"] for pair in paired]  # 12 pairs, each of 6 pseudo-labelled slices twice
    assert len(torch.stack(images).flatten(1).unique(dim=0)) == 12


def test_both_kinds_must_be_there(parts: tuple[SliceDataset, SliceDataset]) -> None:
    with pytest.raises(UserError, match="no pseudo-labelled slices"):
        PairedSlices(parts[0], SliceDataset([], network_grid(size=32)))


def test_soft_labels_keep_their_levels_and_have_the_edge_of_one_half(tmp_path: Path) -> None:
    from PIL import Image

    levels = np.zeros((32, 32), np.uint8)
    levels[8:24, 8:24], levels[12:20, 12:20] = 51, 204  # 0.2 and 0.8
    Image.fromarray(np.full((32, 32), 100, np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(levels).save(tmp_path / "label.png")
    case = {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "label.png"), "label_scale": 255}
    (item,) = SliceDataset([case], network_grid(size=32), training_input())
    np.testing.assert_allclose(item["label"][0].T.numpy(), levels / 255, atol=0.5 / LEVELS)
    edge = np.zeros((32, 32))
    edge[12:20, 12:20], edge[13:19, 13:19] = 1, 0
    np.testing.assert_array_equal(item["label"][1].T.numpy(), edge)
