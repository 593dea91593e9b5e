"""Figures from what was measured, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...messages import markdown_table
from .timing import Row, ratio, spread

NOTES = {
    "network": """\
Milliseconds per slice or patch: minimum and median of n rounds, in which the rows take turns.
"Per scan": slices or patches that a scan of 512 x 512 x 148 voxels of 0.7 x 0.7 x 2 mm takes, with
the network's own test-time augmentation. "Ratio": median over the rounds of the seconds per scan
over those of our first row in the same round. A multiplication with an addition counts as two
operations. "% of peak": against the product of matrices in the same precision. Weights are random.""",
    "training": """\
Forward pass, loss, backward pass and Adam, channels last. "Of the stack": median over the rounds of
the operations per second over those of a plain stack of 3x3 convolutions of like sizes.""",
    "segment": """\
From the command to its end: minimum, median and in brackets the ratio to the first column, which is
the median over the rounds of the ratio within a round. CPU is user and system time. The stages
"write" (masks) and "report" (preview and page) run beside each other.""",
    "memory": "Peak of the resident memory in GB during a stage, one run. Loaded: before the scan is read.",
}


def add_figures(sections: Mapping[str, Any]) -> None:
    """Compute from the measured values of every section what its table shows, in place."""
    figures = {"network": _network_figures, "training": _training_figures, "segment": _segment_figures}
    for name, add in figures.items():
        add([row for row in sections.get(name, {"rows": []})["rows"] if "missing" not in row])


def _network_figures(rows: list[Row]) -> None:
    networks = _speeds(rows)
    scans = [[one * row["units_per_scan"] / row["units"] for one in row["seconds"]] for row in networks]
    for row, seconds in zip(networks, scans, strict=True):
        row["scan_s"] = spread(seconds) | {"ratio": ratio(seconds, scans[0])}


def _training_figures(rows: list[Row]) -> None:
    """The plain stack comes behind the network that it is compared with."""
    steps = _speeds(rows)
    for row, stack in zip(steps[::2], steps[1::2], strict=True):
        row["of_stack"] = row["gflop"] / stack["gflop"] * ratio(stack["seconds"], row["seconds"])


def _speeds(rows: list[Row]) -> list[Row]:
    """Add times and operations per second to all rows, compare them with products of matrices."""
    for row in rows:
        row["ms"] = spread([1000 * one / row["units"] for one in row["seconds"]])
        row["gflop_per_s"] = 1000 * row["gflop"] / row["ms"]["min"]
    peaks = {row["precision"]: row["gflop_per_s"] for row in rows if row["unit"] == "product"}
    networks = [row for row in rows if row["unit"] != "product"]
    for row in networks:
        peak = peaks.get(row["precision"])
        row["percent_of_peak"] = 100 * row["gflop_per_s"] / peak if peak else None
    return networks


def _segment_figures(rows: list[Row]) -> None:
    for row in rows:
        stages = dict.fromkeys(stage for one in row["rounds"] for stage in one["stages"])
        row["figures"] = {}
        for key in ("wall_s", "cpu_s", "peak_gb", *stages):
            values, reference = (
                [(one | one["stages"]).get(key, 0.0) for one in which["rounds"]] for which in (row, rows[0])
            )
            row["figures"][key] = spread(values) | ({"ratio": ratio(values, reference)} if all(reference) else {})


def markdown(result: Mapping[str, Any], sections: Iterable[str] | None = None) -> str:
    """Return the tables of some sections, or of all with what is needed to understand a figure."""
    parts = [_heading(result)] if sections is None else []
    for name in result["sections"] if sections is None else sections:
        section = result["sections"][name]
        stopped = "" if section["complete"] else "\n\nStopped; the same command measures it anew."
        scan = f"{section['scan']}\n\n" if "scan" in section else ""
        parts.append(f"## {name}{stopped}\n\n{scan}{TABLES[name](section['rows'])}\n\n{NOTES[name]}")
    return "\n\n".join(parts) + "\n"


def _heading(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    packages = [f"{name} {version}" for name, version in machine["packages"].items()]
    facts = {
        "processor": f"{machine['processor']}, {machine['cores']} cores",
        "instructions": ", ".join(machine["flags"]) or "unknown",
        "device": f"{machine['device']}, {machine['threads']} threads",
        "versions": ", ".join([f"bundle {machine['bundle']} ({machine['commit'] or 'commit unknown'})", *packages]),
        "system": machine["platform"],
        "n (rounds)": result["settings"]["rounds"],
    }
    return "# Benchmark\n\n" + _table(["", "machine"], facts.items())


def _network_table(rows: Sequence[Row]) -> str:
    columns: dict[str, Callable[[Row], object]] = {
        "per scan": lambda row: row.get("units_per_scan", ""),
        "s per scan, median": lambda row: _digits(row.get("scan_s", {}).get("median")),
        "ratio": lambda row: _digits(row.get("scan_s", {}).get("ratio")),
    }
    return _speed_table(rows, columns)


def _training_table(rows: Sequence[Row]) -> str:
    return _speed_table(rows, {"of the stack": lambda row: _digits(row.get("of_stack"))})


def _speed_table(rows: Sequence[Row], further: Mapping[str, Callable[[Row], object]]) -> str:
    columns: dict[str, Callable[[Row], object]] = {
        "ms, min": lambda row: _digits(row["ms"]["min"]),
        "ms, median": lambda row: _digits(row["ms"]["median"]),
        **further,
        "GFLOP": lambda row: _digits(row["gflop"]),
        "GFLOP/s": lambda row: _digits(row["gflop_per_s"]),
        "% of peak": lambda row: _digits(row.get("percent_of_peak")),
    }
    if any("gpu_gb" in row for row in rows):
        columns["GPU memory, GB"] = lambda row: _digits(row.get("gpu_gb"))
    lines: list[list[object]] = []
    for row in rows:
        applied = f"{row['backend']}, {row['precision']}" if "backend" in row else ""
        if "missing" in row:
            lines.append([row["network"], applied, row["missing"], *[""] * len(columns)])
        else:
            lines.append([row["network"], applied, row["input"], *(column(row) for column in columns.values())])
    return _table(["network", "backend, precision", "input", *columns], lines)


def _segment_table(rows: Sequence[Row]) -> str:
    lines = []
    for key in dict.fromkeys(key for row in rows for key in row["figures"]):
        lines.append([key, *(_spread(row["figures"].get(key)) for row in rows)])
        if key in rows[0]["first"]:
            lines.append([f"{key}, first run", *(_digits(row["first"][key]) for row in rows)])
    return _table(["", *(row["run"] for row in rows)], lines)


def _memory_table(rows: Sequence[Row]) -> str:
    peaks = [{"loaded": row["loaded_gb"], **row["stages"]} for row in rows]
    lines = [[stage, *(_digits(one.get(stage)) for one in peaks)] for stage in peaks[0]]
    return _table(["", *(row["run"] for row in rows)], lines)


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "network": _network_table,
    "training": _training_table,
    "segment": _segment_table,
    "memory": _memory_table,
}


def _table(head: Sequence[str], lines: Iterable[Iterable[object]]) -> str:
    return "\n".join(markdown_table(head, lines))


def _spread(value: Mapping[str, float] | None) -> str:
    compared = f" ({_digits(value['ratio'])})" if value and "ratio" in value else ""
    return f"{_digits(value['min'])}, {_digits(value['median'])}{compared}" if value else ""


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
