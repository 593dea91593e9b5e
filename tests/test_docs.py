"""Hold the documents to their form: short lines, links and files that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts.report.measure import measure_infection
from scripts.report.severity import grade

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
WIDEST = 100
MADE_BY_THE_READER = {"scripts/networks/plain_net.py", "configs/networks/plain_net.yaml"}
"""The example of docs/training.md; tests/configs/test_network_target.py runs it."""

pytestmark = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def parts(document: Path) -> Iterator[tuple[int, str, bool]]:
    """Number and text of every line, and whether it stands in a code block."""
    code = False
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        fence = line.lstrip().startswith("```")
        yield number, line, code or fence
        code ^= fence


def prose(document: Path) -> str:
    return "\n".join(line for _, line, code in parts(document) if not code)


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.*)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_lines_are_short(document: Path) -> None:
    """Of prose and of code; a row of a table and a picture's words cannot be broken."""
    wide = [
        number for number, line, _ in parts(document) if len(line) > WIDEST and not line.startswith(("|", "[![", "!["))
    ]
    assert wide == []


def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"https?:|\.\./\.\./actions/", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_files_of_the_bundle_exist(document: Path) -> None:
    """Configs of commands and files that texts name, relative to the bundle,
    to scripts/ or to configs/."""
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.])((?:configs|scripts|tests)/[\w/.-]*\w\.(?:yaml|json|py|conf))", text))
    named |= set(re.findall(r"`([a-z]\w*(?:/\w+)*/\w+\.(?:py|yaml))`", text))
    homes = (ROOT, ROOT / "scripts", ROOT / "configs")
    missing = {name for name in named if not any((home / name).exists() for home in homes)}
    assert {name for name in missing - MADE_BY_THE_READER if "NAME" not in name} == set()


def test_packages_exist(document: Path) -> None:
    """docs/code.md names every package, with a slash behind, and none that is gone."""
    if document.name != "code.md":
        return
    named = set(re.findall(r"^\| \d+ \| `(\w+)/`", document.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert named == {path.parent.name for path in ROOT.glob("scripts/*/__init__.py")}


def test_report_is_described_as_written(document: Path) -> None:
    """docs/segment.md names every key of the measures, and the words of the grades."""
    if document.name != "segment.md":
        return
    text = document.read_text(encoding="utf-8")
    measures = measure_infection(None, np.zeros((2, 2, 2), np.uint8), None, None)
    keys = text.split("### Keys of report.json")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", keys, flags=re.MULTILINE) == [*measures]
    (columns,) = re.findall(r"^\| `slice_profile` \| (\w+)", keys, flags=re.MULTILINE)
    assert (columns == "lists") == isinstance(measures["slice_profile"]["infection_voxels"], list)
    words = [grade(percent)["category"] for percent in (0, 1, 5, 26, 50, 76)]
    assert re.findall(r"^\| \d \| (\w+) \|", text, flags=re.MULTILINE) == words


def test_commands_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = {name.replace("-", "_") for name in re.findall(r"python -m scripts ([a-z_-]+)", text)}
    assert [name for name in sorted(named) if not (ROOT / f"scripts/commands/{name}.py").exists()] == []


def test_the_package_comes_from_this_folder(document: Path) -> None:
    """Or from a file: an index may hold a package of somebody else under its name."""
    lines = re.findall(
        r"^.*\binstall\b.*lung-infection-ct\[.*$", document.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert [line for line in lines if "--no-index" not in line and "@ https://" not in line] == []


def test_what_the_shipped_weights_saw_is_counted_alike(document: Path) -> None:
    """One slice is left out of their training, and the tumour is a test case."""
    if document.name != "segment.md":
        return
    listed = json.loads((ROOT / "docs/results/datalists/4f6670ea03a1.json").read_text(encoding="utf-8"))["training"]
    left_out = json.loads((ROOT / "models/model.json").read_text(encoding="utf-8"))["data"]["fold"]
    saw = [case for case in listed if case["name"] not in left_out]
    slices = sum(case["name"].startswith("semiseg") for case in saw)
    free = sum(bool(case.get("lesion_free")) and not case["name"].startswith("negatives") for case in saw)
    readme, card = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/README.md"))
    assert f" {slices} slices of unknown patients" in readme
    assert f" {slices} of the 50 labelled" in card
    words = ("no", "one", "two", "three", "four", "five")[free]
    assert f" {words} volumes and 300 slices of chests without" in card
    assert f" ten labelled volumes and {words} without" in document.read_text(encoding="utf-8")
