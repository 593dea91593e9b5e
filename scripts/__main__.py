"""`python -m scripts COMMAND`: the commands for people. `python -m scripts COMMAND --help` explains each."""

from __future__ import annotations

import sys

import fire

from scripts.commands.monai_label import MONAI_LABEL
from scripts.commands.phantom import phantom
from scripts.commands.prepare import prepare
from scripts.commands.preview import preview
from scripts.errors import UserError

COMMANDS = {"phantom": phantom, "prepare": prepare, "preview": preview, "monai_label": MONAI_LABEL}


def main() -> None:
    """Runs one command and turns a user's mistake into one line and exit code 2."""
    try:
        fire.Fire(COMMANDS, name="python -m scripts")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
