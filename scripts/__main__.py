"""`python -m scripts COMMAND`: the commands for people. `python -m scripts COMMAND --help` explains each."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import fire

from .command_line import refuse_unknown_options, typed
from .errors import find_user_error
from .messages import show_messages

COMMANDS = {
    "segment": "segment",
    "classify": "classify",
    "experiment": "experiment",
    "calibrate": "calibrate",
    "publish": "publish",
    "phantom": "phantom",
    "prepare": "prepare",
    "preview": "preview",
    "figures": "figures",
    "radiograph": "radiograph",
    "monai_label": "MONAI_LABEL",
}
"""Module of `scripts.commands` and what in it is the command. Only the one asked for is imported:
MONAI Label's environment has none of the DICOM packages that `segment` needs."""


def load(name: str) -> Any:
    """Imports a command, or the dictionary of a command's parts."""
    found = getattr(import_module(f".commands.{name}", __package__), COMMANDS[name])
    return {part: typed(command) for part, command in found.items()} if isinstance(found, dict) else typed(found)


def main() -> None:
    """Runs one command and turns a user's mistake into one line and exit code 2."""
    asked = [name for name in sys.argv[1:2] if name in COMMANDS] or list(COMMANDS)
    try:
        commands = {name: load(name) for name in asked}
        command: Any = commands
        words = sys.argv[1:]
        while isinstance(command, dict) and words and words[0] in command:
            command, words = command[words[0]], words[1:]
        if callable(command):
            refuse_unknown_options(command, words)
        fire.Fire(commands, name="python -m scripts")
    except Exception as error:
        mistake = find_user_error(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    show_messages()
    main()
