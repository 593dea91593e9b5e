"""Run the sections of the benchmark, and keep what was measured after every round."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import read_json, write_json, write_text
from .machine import describe
from .networks import check_plan, measure_networks, measure_training
from .segmenting import measure_memory, measure_segment
from .tables import add_figures, markdown
from .timing import Plan

FORMAT = 1
SECTIONS: dict[str, Callable[[Plan], Iterator[dict[str, Any]]]] = {
    "network": measure_networks,
    "training": measure_training,
    "segment": measure_segment,
    "memory": measure_memory,
}


def run_benchmark(plan: Plan, sections: Sequence[str], overwrite: bool = False) -> Path:
    """Measure sections and write `benchmark.json` and `benchmark.md` into `plan.out`.

    Both are written after every round. A section that an earlier call has finished is not measured
    again. The table of a section is printed when it has ended.

    Args:
        plan: the settings.
        sections: names of `SECTIONS`.
        overwrite: measures anew what is there.

    Returns:
        The Markdown file.

    Raises:
        UserError: for an unknown section, for a width or size that our network refuses, and if the
            folder holds figures of another machine, version or setting.
    """
    if unknown := [name for name in sections if name not in SECTIONS]:
        raise UserError(f"--sections has {', '.join(map(repr, unknown))}; expected: {', '.join(SECTIONS)}")
    check_plan(plan)
    settings = json.loads(json.dumps({key: value for key, value in asdict(plan).items() if key != "out"}, default=str))
    result: dict[str, Any] = {"format": FORMAT, "machine": describe(plan.device), "settings": settings}
    path = plan.out / "benchmark.json"
    result["sections"] = {} if overwrite else _earlier_sections(path, result)
    plan.out.mkdir(parents=True, exist_ok=True)
    for name in sections:
        if not result["sections"].get(name, {}).get("complete"):
            for content in SECTIONS[name](plan):
                result["sections"][name] = {"complete": False, **content}
                _write(path, result)
            result["sections"][name]["complete"] = True
            _write(path, result)
        print(markdown(result, [name]))
    return path.with_suffix(".md")


def _earlier_sections(path: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    try:
        earlier = read_json(path)
    except FileNotFoundError:
        return {}
    except ValueError:
        earlier = {}
    if differs := [key for key in now if earlier.get(key) != now[key]]:
        found = f"holds a benchmark of another {' and '.join(differs)}"
        raise UserError(f"{path}: {found}; expected: another OUT, or --overwrite to measure anew")
    sections: dict[str, Any] = earlier["sections"]
    return sections


def _write(path: Path, result: dict[str, Any]) -> None:
    add_figures(result["sections"])
    write_json(path, result)
    write_text(path.with_suffix(".md"), markdown(result))
