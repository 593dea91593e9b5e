"""A slice among its neighbours becomes a thick one."""

from __future__ import annotations

import torch

from scripts.transforms.thick_slices import RandThickSliced


def test_it_is_the_mean_of_as_many_neighbours_on_either_side() -> None:
    slab = torch.arange(5.0)[:, None, None] ** 2 * torch.ones(5, 2, 3)  # 0, 1, 4, 9, 16
    thick = RandThickSliced("image", prob=1.0)
    found = set()
    for seed in range(12):
        thick.set_random_state(seed)
        item = thick({"image": slab[2:3].clone(), "slab": slab})
        assert item["image"].shape == (1, 2, 3)
        assert "slab" not in item
        found.add(float(item["image"][0, 0, 0]))
    assert found == {float(torch.tensor(14 / 3)), 6.0}


def test_without_neighbours_or_luck_it_stays() -> None:
    image = torch.rand(1, 2, 3)
    assert torch.equal(RandThickSliced("image")({"image": image})["image"], image)
    item = RandThickSliced("image", prob=0.0)({"image": image, "slab": torch.rand(3, 2, 3)})
    assert torch.equal(item["image"], image)
    assert "slab" not in item
