"""Words of a command line arrive as they were typed, or are refused before anything is done."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer import TyperException
from typer.core import TyperGroup
from typer.main import get_command

from scripts import __main__
from scripts.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def parse(*words: str) -> dict[str, Any]:
    """Returns what a command would be called with."""
    command, context, rest = get_command(__main__.build()), None, list(words)
    context = command.context_class(command, info_name="scripts", **command.context_settings)
    while isinstance(command, TyperGroup):
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None
        if isinstance(command, TyperGroup):
            context = command.context_class(command, info_name=name, parent=context, **command.context_settings)
    return command.make_context(name, rest, parent=context).params


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        ("--smallest_lesion_mm3 5", "smallest_lesion_mm3", 5.0),
        ("--smallest-lesion-mm3 5", "smallest_lesion_mm3", 5.0),
        ("--smallest-lesion-mm3=5e0", "smallest_lesion_mm3", 5.0),
        ("", "overwrite", False),
        ("--overwrite", "overwrite", True),
        ("--overwrite true", "overwrite", True),
        ("--overwrite=True", "overwrite", True),
        ("--overwrite false", "overwrite", False),
        ("--overwrite=False", "overwrite", False),
        ("--nooverwrite", "overwrite", False),
        ("--no-overwrite", "overwrite", False),
        ("", "flips", None),
        ("--flips", "flips", True),
        ("--flips true", "flips", True),
        ("--flips false", "flips", False),
        ("--flips=false", "flips", False),
        ("--noflips", "flips", False),
        ("--no_flips", "flips", False),
        ("--flips null", "flips", None),
        ("--volume 2", "volume", 2),
        ("--volume none", "volume", None),
        ("--series=None", "series", None),
        ("--series 12345e67", "series", "12345e67"),
        ("--weights null", "weights", None),
        ("--intensity null", "intensity", "null"),
        ("--intensity window:-1000,400", "intensity", "window:-1000,400"),
        ("-q", "quiet", True),
        ("-t 0.3", "threshold", 0.3),
        ("-threshold=0.3", "threshold", 0.3),
    ],
)
def test_spellings_of_an_option(words: str, option: str, value: object) -> None:
    for line in (["segment", *words.split(), "a", "b", "out"], ["segment", "a", "b", "out", *words.split()]):
        found = parse(*line)
        assert found[option] == value
        assert (found["inputs"], found["output"]) == (["a", "b"], Path("out"))


@pytest.mark.parametrize("path", ["run#2", "20200301_1200", "1e5", "[1,2]", "None", "a b.nii", "{x}", "'q'", "0x10"])
def test_paths_are_taken_as_they_are_typed(path: str) -> None:
    assert parse("segment", path, "out")["inputs"] == [path]
    assert parse("segment", "--", f"--{path}", "out")["inputs"] == [f"--{path}"]


@pytest.mark.parametrize(
    "words", ["a b --out c", "--out=c a b", "--mask b a c", "--out c --scan a --mask b", "a --mask=b --out=c"]
)
def test_arguments_by_name(words: str) -> None:
    found = parse("preview", *words.split())
    assert [str(found[name]) for name in ("scan", "mask", "out")] == ["a", "b", "c"]


@pytest.mark.parametrize("group", ["monai_label", "monai-label"])
def test_names_with_either_stroke(group: str) -> None:
    assert parse(group, "use", "first", "--deployment", "out") == {"checkpoint": "first", "deployment": Path("out")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("segment a", "Missing argument 'INPUT'"),
        ("prepare a", "Missing argument 'SOURCE'"),
        ("segment a out --treshold 3", "No such option: --treshold .*--threshold"),
        ("segment a out -treshold=0.3", "No such option"),
        ("segment a out --inputs b", "No such option: --inputs"),
        ("segment a out --quiet=maybe", "'--quiet' does not take a value"),
        ("segment a out --volume 1.5", "'--volume': .*valid integer"),
        ("segment a out --volume second", "'--volume': .*valid integer"),
        ("segment a out --threshold half", "'--threshold': .*valid number"),
        ("segment a out --threshold", "'--threshold' requires an argument"),
        ("segment a out --nothreshold=3", "No such option"),
        ("figures a out", "Missing option '--weights'"),
        ("phantom out 5", "unexpected extra argument.*5"),
        ("phantom out -z", "No such option: -z"),
        ("segmnt a out", "No such command 'segmnt'. Did you mean 'segment'"),
    ],
)
def test_wrong_words_are_refused(words: str, said: str) -> None:
    with pytest.raises(TyperException) as refused:
        parse(*words.split())
    assert re.search(said, refused.value.format_message())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "out", "--weights", ""], "an empty word after --weights; expected: a value"),
        (["a", "out", "--weights="], "an empty word in --weights="),
        (["a", "out", "--lungs", "", "-q"], "an empty word after --lungs"),
        (["a", "out", "--overwrite", ""], "an empty word after --overwrite"),
        (["", "out"], "an empty word first of all"),
        (["--", "a", ""], "an empty word after a"),
    ],
)
def test_an_empty_word_is_no_default(words: list[str], said: str) -> None:
    """Of `--weights "$MINE"`, where MINE is not set, shipped weights would have come."""
    with pytest.raises(UserError, match=f"^{said}"):
        parse("segment", *words)


@pytest.mark.parametrize("words", ["phantom OUT --case 2", "phantom", "phantm OUT", "", "monai_label"])
def test_wrong_use_ends_in_one_line_and_code_2(words: str, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts", *words.replace("OUT", str(tmp_path / "out")).split()])
    hook = sys.excepthook
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "--help" in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert sys.excepthook is hook


def test_the_version_is_that_of_the_metadata(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts", "--version"])
    __main__.main()
    metadata = json.loads((ROOT / "configs/metadata.json").read_text(encoding="utf-8"))
    assert capsys.readouterr().out == f"{metadata['version']}\n"


@pytest.mark.parametrize("words", ["segment LONG OUT", "phantom LONG", "prepare LONG OUT", "view LONG"])
def test_a_name_that_is_too_long_ends_in_one_line_and_code_2(words: str, monkeypatch, tmp_path, capsys) -> None:
    words = words.replace("LONG", "x" * 3000).replace("OUT", str(tmp_path / "out"))
    monkeypatch.setattr(sys, "argv", ["scripts", *words.split()])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 2
    assert re.fullmatch(
        r"error: \S*x{30,}\.\.\.: File name too long; expected: a shorter name\n", capsys.readouterr().err
    )
    assert not [*tmp_path.iterdir()]


def commands_of(text: str) -> list[list[str]]:
    """Returns the words of every command line, in blocks and in running text,
    that has more than the command's name."""
    text = re.sub(r"\\\n\s*", " ", text)
    blocks = re.findall(r"^[^\S\n]*(?:#\s+)?(?:\S*/)?(?:python -m scripts|lung-infection) (.*)", text, re.MULTILINE)
    inline = [" ".join(one.split()) for one in re.findall(r"`(?:python -m scripts|lung-infection) ([^`]+)`", text)]
    return [words for words in (shlex.split(one, comments=True) for one in blocks + inline) if len(words) > 1]


PAGES = sorted(path for pattern in ("*.md", "docs/*.md", "configs/experiments/*.yaml") for path in ROOT.glob(pattern))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_the_documentation_parse(page: Path) -> None:
    for words in commands_of(page.read_text(encoding="utf-8")):
        parse(*words)


def test_commands_are_found() -> None:
    text = "```\n.venv/bin/python -m scripts a b \\\n  c  # d\n```\nand `python -m scripts e`, `python -m scripts f\ng`"
    assert commands_of(text) == [["a", "b", "c"], ["f", "g"]]


HEAVY = (
    "torch",
    "monai",
    "numpy",
    "pandas",
    "matplotlib",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "nibabel",
    "scipy",
    "fire",
)
LIGHT = """
import sys
import scripts
before = set(sys.modules)
assert not before & set(sys.argv[1:]), before
from scripts import __main__
from scripts.errors import UserError
from typer.core import TyperGroup
from typer.main import get_command

def ask(command, words):
    sys.argv = ["lung-infection", *words, "--help"]
    __main__.main()
    for name, part in getattr(command, "commands", {}).items():
        ask(part, [*words, name])

heavy = set(sys.argv[1:])
ask(get_command(__main__.build()), [])
print(heavy & set(sys.modules), file=sys.stderr)
"""


def test_help_of_every_command_imports_no_heavy_package() -> None:
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb"}
    line = [sys.executable, "-c", LIGHT, *HEAVY]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "set()\n")
    assert done.stdout.count("Usage: lung-infection ") == 20  # `dicom-node` in two spellings
    for panel in ("Product", "Data", "Training", "Research"):
        assert f" {panel} " in done.stdout
    assert (done.stdout.count(" dicom-node  "), done.stdout.count(" dicom_node  ")) == (1, 0)  # in the list
    assert "--smallest_lesion_mm3" in done.stdout


def test_a_shell_completes_commands_and_options() -> None:
    code = "import sys; sys.argv[0] = 'lung-infection'; from scripts.__main__ import main; main()"
    for typed, expected in (("lung-infection seg", "segment"), ("lung-infection segment --thr", "--threshold")):
        complete = {
            "_LUNG_INFECTION_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        }
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **complete}, capture_output=True, text=True
        )
        assert done.stdout.split() == [expected], done.stderr
