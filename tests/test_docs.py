"""Hold the documents to their form: short lines, links and files that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def test_lines_of_prose_are_short(document: Path) -> None:
    wide = [
        number
        for number, line, code in parts(document)
        if len(line) > WIDEST and not code and not line.startswith(("|", "[![", "!["))
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
    """Configs that commands name, modules and tests that texts name."""
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.])((?:configs|scripts|tests)/[\w/.-]*\w\.(?:yaml|json|py|conf))", text))
    missing = [name for name in sorted(named - MADE_BY_THE_READER) if "NAME" not in name and not (ROOT / name).exists()]
    assert missing == []


def test_commands_exist(document: Path) -> None:
    named = set(re.findall(r"python -m scripts ([a-z_]+)", document.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not (ROOT / f"scripts/commands/{name}.py").exists()] == []
