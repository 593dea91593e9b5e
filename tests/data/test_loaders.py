from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts.data import loaders
from scripts.data.datalist import select_cases
from scripts.data.loaders import SliceLoader, slice_device
from scripts.data.slices import SliceDataset
from scripts.errors import UserError
from tests import refusing_device
from tests.chains import network_grid, training_input

MakeDataset = Callable[..., Path]


def on(device: str, folder: Path) -> SliceDataset:
    cases = select_cases(folder, "all")
    return SliceDataset(cases, network_grid(size=32), training_input(augment=True), device=device, progress=False)


def test_slices_on_a_device_are_those_of_the_host(
    device: str, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusing_device, "LACKS", set())  # MONAI's affine computes in float64
    folder = make_dataset(cases=2)
    host, there = on("cpu", folder), on(device, folder)
    assert there.device == torch.device(device)
    for epoch in (1, 2):
        for dataset in (host, there):
            dataset.set_epoch(epoch)
        with refusing_device.counting() as reads:
            served = [there[i] for i in range(len(there))]
        assert reads["copies"] == 0
        for i, item in enumerate(served):
            assert item["image"].device.type == item["label"].device.type == torch.device(device).type
            torch.testing.assert_close(item["image"].cpu(), host[i]["image"], atol=1e-4, rtol=1e-4)
            assert (item["label"].cpu() != host[i]["label"]).float().mean() < 0.01  # the nearest pixel may be another
    (batch, *_) = SliceLoader(there, device, batch_size=4)
    assert batch["image"].device.type == torch.device(device).type


def test_slices_that_do_not_fit_stay_on_the_host(
    device: str, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loaders, "MOST_OF_A_DEVICE", -1.0)
    monkeypatch.setattr(loaders, "free_memory", lambda _: 1.0)
    with caplog.at_level(logging.WARNING):
        dataset = on(device, make_dataset(cases=1))
    assert "they stay on the host" in caplog.text
    assert dataset.device == torch.device("cpu")
    assert dataset[0]["image"].device == torch.device("cpu")


def test_where_slices_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda:0"), torch.device("cpu")
    assert [slice_device(wanted, "cuda:0") for wanted in (True, "false")] == [cuda, cpu]
    assert slice_device(True, "mps") == cpu
    monkeypatch.setattr(loaders, "cores", lambda: 2)
    assert [slice_device("auto", one) for one in ("cuda:0", "cpu")] == [cuda, cpu]
    monkeypatch.setattr(loaders, "cores", lambda: 16)
    assert slice_device("auto", "cuda:0") == cpu


def test_processes_of_one_machine_divide_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders.os, "sched_getaffinity", lambda _: range(64))
    assert loaders.cores() == 64
    monkeypatch.setattr(loaders, "is_distributed", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 16)  # on two machines
    assert loaders.cores() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")  # as torchrun says
    assert loaders.cores() == 8


def test_processes_that_augment(make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "cores", lambda: 16)
    dataset = on("cpu", make_dataset(cases=1))
    assert SliceLoader(dataset, "cpu").num_workers == 0
    assert SliceLoader(dataset, "cpu", "2").num_workers == 2
    gpu = SliceLoader(dataset, "cuda:0")
    assert gpu.num_workers == 8
    assert gpu.pin_memory
    with pytest.raises(UserError, match="num_workers is 'many'; expected: a whole number from 0, or auto"):
        SliceLoader(dataset, "cpu", "many")
    dataset.device = torch.device("cuda:0")
    assert (gpu := SliceLoader(dataset, "cuda:0")).num_workers == 0
    assert not gpu.pin_memory
    with pytest.raises(UserError, match="expected: 0, or --cache_device false"):
        SliceLoader(dataset, "cuda:0", 2)
