"""Words of a command line arrive as they were typed, or are refused before anything is done."""

from __future__ import annotations

import sys

import fire
import pytest

from scripts import __main__
from scripts.command_line import refuse_unknown_options, typed
from scripts.errors import UserError

CALLS: list[dict[str, object]] = []


def command(
    *paths: str, volume: int | None = None, level: float = 0.5, series: str | None = None, quiet: bool = False
) -> None:
    CALLS.append({"paths": paths, "volume": volume, "level": level, "series": series, "quiet": quiet})


def run(*words: str) -> dict[str, object]:
    CALLS.clear()
    fire.Fire(typed(command), command=list(words))
    (call,) = CALLS
    return call


@pytest.mark.parametrize("path", ["run#2", "20200301_1200", "1e5", "[1,2]", "None", "a b.nii", "{x}", "'q'", "0x10"])
def test_paths_are_taken_as_they_are_typed(path: str) -> None:
    assert run(path, "out")["paths"] == (path, "out")


def test_options_have_the_type_that_they_are_annotated_with() -> None:
    found = run("a", "--volume", "2", "--level=1e-3", "--series", "12345e67", "--quiet")
    assert found == {"paths": ("a",), "volume": 2, "level": 0.001, "series": "12345e67", "quiet": True}
    assert run("a", "--quiet", "false", "--volume", "none") == {**run("a"), "paths": ("a",)}
    assert run("a", "--noquiet")["quiet"] is False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quiet", "a.nii.gz", "b.nii.gz"], "--quiet is 'a.nii.gz'; expected: true or false"),
        (["a", "--volume", "1.5"], "--volume is '1.5'; expected: a whole number"),
        (["a", "--volume", "second"], "--volume is 'second'"),
        (["a", "--level", "half"], "--level is 'half'; expected: a number"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(*words)
    assert not CALLS


def test_options_that_there_are_pass() -> None:
    refuse_unknown_options(command, ["a-b", "-5", "--level=2", "--noquiet", "-q", "--help", "--series", "x-y"])


@pytest.mark.parametrize("word", ["--treshold", "--treshold=0.3", "-treshold", "--paths", "-z"])
def test_an_option_that_there_is_not_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=rf"^{word}: no such option; expected: --volume, --level, --series, --quiet$"):
        refuse_unknown_options(command, ["a", "b", word])


def test_it_is_refused_before_the_command_runs(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts", "phantom", str(tmp_path / "out"), "--case", "2"])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: --case: no such option; expected: --out, --cases")
    assert not (tmp_path / "out").exists()
