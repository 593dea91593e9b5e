"""`python -m scripts benchmark` on tiny sizes: what is written, and from which numbers."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch

from scripts.commands.benchmark import benchmark
from scripts.errors import UserError
from scripts.research.benchmark import machine, networks, peers, run, segmenting
from scripts.research.benchmark.tables import add_figures, markdown
from scripts.research.benchmark.timing import Plan, in_turns

ABSENT = peers.Peer("absent network", partial(import_module, "no_such_package"), (1, 1, 8, 8), 1, "no-such==1")
TINY = {"rounds": 2, "widths": ["4"], "size": 32, "batch": 2, "device": "cpu"}


@pytest.fixture
def tiny_network_section(monkeypatch):
    """Small products, and of the networks of others MONAI's and one whose package is absent."""
    monkeypatch.setattr(networks, "MATRIX", 16)
    monkeypatch.setattr(networks, "list_peers", lambda plan: [*peers.list_peers(plan)[:2], ABSENT])


@pytest.fixture
def sections(monkeypatch):
    """Replaces all sections by what the test gives, named as its functions."""

    def replace(**given):
        monkeypatch.setattr(run, "SECTIONS", given)

    return replace


def read(out: Path) -> dict:
    return json.loads((out / "benchmark.json").read_text())


@pytest.mark.usefixtures("tiny_network_section")
def test_networks_from_the_command_to_the_tables(tmp_path, capsys):
    benchmark(tmp_path, ["network"], **TINY)
    printed = capsys.readouterr().out
    result = read(tmp_path)
    assert result["machine"]["threads"] == torch.get_num_threads()
    section = result["sections"]["network"]
    assert section["complete"]
    rows = {row["network"]: row for row in section["rows"] if "missing" not in row}
    assert {"ours (ResUNet), width 4", "MONAI BasicUNet, width 4", "MONAI AttentionUnet, width 4"} <= rows.keys()
    for row in rows.values():
        assert len(row["seconds"]) == row["ms"]["n"] == 2
        assert row["ms"]["min"] == pytest.approx(1000 * min(row["seconds"]) / row["units"])
        assert row["gflop"] > 0
    assert rows["MONAI BasicUNet, width 4"]["input"] == "2 of 32 x 32"
    applied = [(row["backend"], row["precision"]) for row in section["rows"] if row["network"].startswith("ours")]
    assert applied == networks.SETTINGS  # those that this machine lacks say so
    for text in (printed, (tmp_path / "benchmark.md").read_text()):
        assert "not installed: pip install --no-deps no-such==1" in text
        assert "MONAI BasicUNet, width 4" in text


def test_products_are_compared_in_their_own_precision():
    network = {"unit": "slice", "units": 4, "units_per_scan": 8, "gflop": 1.0}
    rows = [
        {"unit": "product", "units": 1, "precision": "fp32", "gflop": 10.0, "seconds": [0.2, 0.1]},
        {"unit": "product", "units": 1, "precision": "bf16", "gflop": 10.0, "seconds": [0.01, 0.01]},
        {**network, "precision": "fp32", "seconds": [0.4, 1.0, 0.2]},
        {**network, "precision": "bf16", "seconds": [0.1, 0.5, 0.1]},
        {"missing": "not installed"},
    ]
    add_figures({"network": {"rows": rows}})
    fast = rows[3]
    assert fast["ms"] == {"n": 3, "min": pytest.approx(25), "median": pytest.approx(25)}
    assert fast["scan_s"]["median"] == pytest.approx(0.2)
    assert fast["scan_s"]["ratio"] == pytest.approx(0.5)  # of 0.25, 0.5, 0.5: within the rounds, not of the medians
    assert fast["gflop_per_s"] == pytest.approx(40)
    assert fast["percent_of_peak"] == pytest.approx(4)
    assert rows[2]["percent_of_peak"] == pytest.approx(20)
    assert rows[2]["scan_s"]["ratio"] == 1


def test_a_training_step_is_compared_with_the_stack_within_the_rounds():
    step = {"unit": "step", "units": 1, "precision": "bf16"}
    rows = [
        {"unit": "product", "units": 1, "precision": "bf16", "gflop": 10.0, "seconds": [0.1]},
        {**step, "gflop": 6.0, "seconds": [1.0, 3.0, 2.0]},
        {**step, "gflop": 8.0, "seconds": [1.0, 2.0, 2.0]},
    ]
    add_figures({"training": {"rows": rows}})
    assert rows[1]["of_stack"] == pytest.approx(0.75)
    assert rows[1]["percent_of_peak"] == pytest.approx(6)
    assert "of_stack" not in rows[2]


@pytest.mark.usefixtures("tiny_network_section")
def test_training_steps_in_every_precision(tmp_path):
    benchmark(tmp_path, ["training"], **TINY | {"rounds": 1})
    rows = read(tmp_path)["sections"]["training"]["rows"]
    products = [row for row in rows if row["unit"] == "product"]
    assert [row["network"] for row in rows[len(products) :: 2]] == ["ResUNet C_2F, width 4"] * len(products)
    assert {row["precision"] for row in rows} == {row["precision"] for row in products}
    assert all(row["of_stack"] > 0 for row in rows[len(products) :: 2])
    assert "| ResUNet C_2F, width 4 | torch, fp32 | 2 of 32 x 32 |" in (tmp_path / "benchmark.md").read_text()


@pytest.mark.parametrize("name", ["cuda:1", "mps"])
def test_time_ends_when_the_device_of_the_plan_is_done(name, tmp_path, monkeypatch):
    """It may be another than the current one."""
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    for memory in ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, memory, lambda device: 0)
    rows, plan = [{"network": "", "backend": "", "precision": ""}], Plan(tmp_path, torch.device(name), rounds=1)
    list(in_turns(rows, [lambda: None], plan))
    assert set(waited) == {plan.device}
    assert rows[0]["seconds"][0] > 0


def test_runs_of_segment_are_compared_round_by_round():
    def measured(wall: float, stages: dict[str, float]) -> dict:
        return {"wall_s": wall, "cpu_s": 2 * wall, "peak_gb": 1.0, "stages": stages}

    slow = {"run": "slow", "rounds": [measured(4, {"read": 1.0, "network": 2}), measured(8, {"read": 1, "network": 5})]}
    fast = {"run": "fast", "rounds": [measured(1, {"read": 0.5}), measured(4, {"read": 1, "new": 3})]}
    section = {"scan": "a scan", "complete": False}
    section["rows"] = [row | {"first": measured(10, {"read": 9})} for row in (slow, fast)]
    add_figures({"segment": section})
    figures = section["rows"][1]["figures"]
    assert figures["wall_s"] == {"n": 2, "min": 1, "median": 2.5, "ratio": 0.375}
    assert figures["read"]["ratio"] == 0.75
    assert "ratio" not in figures["new"]  # the reference has no such stage
    lines = markdown({"sections": {"segment": section}}, ["segment"]).splitlines()
    assert "| wall_s | 4, 6 (1) | 1, 2.5 (0.375) |" in lines
    assert "| wall_s, first run | 10 | 10 |" in lines
    assert any("measures it anew" in line for line in lines)


def test_a_stopped_section_keeps_its_rounds_and_a_finished_one_is_not_measured_again(tmp_path, sections):
    def network(plan):
        assert plan.out.is_dir()  # where `segment` works
        calls.append("network")
        yield {"rows": []}

    def memory(plan):
        calls.append("memory")
        yield {"scan": "s", "rows": [{"run": "default", "loaded_gb": 1.0, "stages": {"read": 2.0}}]}
        if len(calls) == 2:
            raise KeyboardInterrupt

    calls, out = [], tmp_path / "new" / "out"
    sections(network=network, memory=memory)
    with pytest.raises(KeyboardInterrupt):
        benchmark(out, ["network,memory"], **TINY)
    assert read(out)["sections"]["memory"]["rows"][0]["stages"] == {"read": 2.0}
    assert not read(out)["sections"]["memory"]["complete"]
    benchmark(out, ["network,memory"], **TINY)
    assert calls == ["network", "memory", "memory"]
    assert read(out)["sections"]["memory"]["complete"]
    with pytest.raises(UserError, match="another settings"):
        benchmark(out, ["network"], **TINY | {"rounds": 3})
    benchmark(out, ["network"], overwrite=True, **TINY | {"rounds": 3})
    assert read(out)["sections"].keys() == {"network"}


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"sections": ["network,speed"]}, "'speed'; expected: network"),
        ({"widths": ["16,wide"]}, "'wide'"),
        ({"rounds": 0}, "--rounds"),
        ({"widths": ["4,6"]}, "base_width is 6; expected: multiples of 4 from 4 on"),
        ({"size": 200}, "images are 200 x 200 pixels; expected: multiples of 16"),
        ({"scan": Path("absent.nii.gz")}, "absent.nii.gz"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, options, phrase):
    with pytest.raises(UserError) as raised:
        benchmark(tmp_path / "out", **{"sections": ["network"], **TINY, **options})
    assert phrase in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_segment_runs_in_a_new_process(tmp_path, make_scan):
    plan = Plan(tmp_path, torch.device("cpu"), scan=make_scan()[0])
    measured = segmenting.segment_once(plan.scan, plan, {"views": "1", "backend": "torch"})
    assert measured["wall_s"] > sum(measured["stages"].values()) > 0
    assert measured["cpu_s"] > 0
    assert 0.1 < measured["peak_gb"] < 10
    assert {"read", "network"} <= measured["stages"].keys()
    assert list(tmp_path.glob("tmp*")) == []


def test_segment_takes_the_compact_model_on_every_device(tmp_path, monkeypatch):
    called = []

    def started(words, **_):
        called.extend(words)
        raise KeyboardInterrupt

    monkeypatch.setattr(segmenting.subprocess, "Popen", started)
    with pytest.raises(KeyboardInterrupt):
        segmenting.segment_once(tmp_path / "scan.nii", Plan(tmp_path, torch.device("cuda:0")), {})
    assert called[called.index("--model") + 1] == "compact"


def test_a_failure_of_segment_is_one_line(tmp_path):
    plan = Plan(tmp_path, torch.device("cpu"))
    with pytest.raises(UserError, match=r"segment` failed \(.*absent.*; expected: another --scan") as raised:
        segmenting.segment_once(tmp_path / "scan.nii", plan, {"absent_option": "1"})
    assert "\n" not in str(raised.value)


def test_runs_of_segment_take_turns_after_a_first_one(tmp_path, monkeypatch, make_scan):
    calls = []
    monkeypatch.setattr(segmenting, "RUNS", {"a": {"backend": "torch"}, "b": {}})
    monkeypatch.setattr(segmenting, "segment_once", lambda *words: calls.append(words[2]) or {"wall_s": len(calls)})
    *_, last = segmenting.measure_segment(Plan(tmp_path, torch.device("cpu"), rounds=2, scan=make_scan()[0]))
    assert calls == [{"backend": "torch"}, {}] * 3
    assert [row["first"]["wall_s"] for row in last["rows"]] == [1, 2]
    assert [one["wall_s"] for one in last["rows"][1]["rounds"]] == [4, 6]


@pytest.mark.skipif(not segmenting.RESET_PEAK.exists(), reason="needs /proc")
def test_a_stage_that_takes_memory_has_the_peak():
    timer = segmenting.StagePeaks()
    for stage, count in (("small", 1), ("large", 50_000_000), ("small again", 1)):
        with timer(stage):
            torch.ones(count, dtype=torch.float64)
    assert timer.peaks["large"] > timer.peaks["small"] + 0.3
    assert timer.peaks["small again"] < timer.peaks["large"] - 0.3


@pytest.mark.parametrize(
    ("package", "name", "parameters"),
    [
        ("dynamic_network_architectures", "nnU-Net 2-D PlainConvUNet, four flips", 46_324_558),
        ("dynamic_network_architectures", "TotalSegmentator 3 mm PlainConvUNet", 16_603_736),
        ("lungmask", "lungmask U-Net", 31_054_275),
    ],
)
def test_networks_of_others_have_their_published_size(package, name, parameters):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    (peer,) = [one for one in peers.list_peers(Plan(Path(), torch.device("cpu"))) if one.name == name]
    assert sum(one.numel() for one in peer.build().parameters()) == parameters


def test_the_machine_is_described():
    found = machine.describe(torch.device("cpu"))
    assert found["processor"]
    assert found["threads"] == torch.get_num_threads()
    assert found["packages"].keys() >= {"torch", "monai", "numpy"}
