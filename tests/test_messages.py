"""What is printed: nothing in it commands a terminal, nothing about it ends a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.messages import escaped

SCRIPT = """
import sys
from scripts.messages import escaped, shown_messages, steady_output
import logging
with steady_output(), shown_messages():
    for _ in range(2000):
        print("caf\\u00e9" * 20)
        print("caf\\u00e9", file=sys.stderr, flush=True)
        logging.getLogger("scripts.x").warning("a\\x1b[2J")
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("how", ["closed pipe", "full disk", "closed"])
def test_nothing_that_is_printed_ends_a_run(how: str, bundle_root: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "end")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    if how == "closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full" if how == "full disk" else os.devnull, os.O_WRONLY)
    close = "exec >&- 2>&-;" if how == "closed" else ""
    done = subprocess.run(
        ["/bin/sh", "-c", f'{close} exec "$@"', "sh", *words],
        cwd=bundle_root,
        env=environment,
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)
    assert done.returncode == 0
    assert (tmp_path / "end").read_text() == "done"


def test_a_terminal_of_ascii_shows_what_it_can(bundle_root: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "end")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, cwd=bundle_root, env=environment, capture_output=True)
    assert done.returncode == 0
    assert done.stdout.count(rb"caf\xe9" * 20) == 2000
    assert done.stderr.count(rb"caf\xe9") == done.stderr.count(rb"a\x1b[2J") == 2000
    assert b"\x1b" not in done.stderr


def test_names_command_no_terminal() -> None:
    assert escaped("scan\x1b]0;title\x07\r\nerror: x") == r"scan\x1b]0;title\x07\r\nerror: x"
    assert escaped("\u202egpj.exe\u2028\udcff") == r"\u202egpj.exe\u2028\udcff"
    assert escaped("Zoë, 肺, \xa0") == "Zoë, 肺, \xa0"
