"""Spellings of a command line beside typer's own: `monai.bundle`'s and earlier versions'."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperOption

from .errors import refuse_empty

SWITCHES: dict[str, bool | None] = {"true": True, "false": False}
NONE = ("none", "null")
OPTION = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)


class Command(TyperCommand):
    """A command that also takes the spellings of `respell`, and shows its arguments in capitals."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = re.sub(r"(?<!\n)\n(?!\n)", " ", self.help or "")  # lines of a docstring are no lines of a screen
        for one in self.params:
            if isinstance(one, TyperArgument):
                one.metavar = one.metavar or one.name.upper()

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line: INPUT... OUTPUT, not {INPUT}... {OUTPUT}."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of a command line, respelled as typer expects them."""
        return super().parse_args(ctx, respell(self.params, args))


def respell(parameters: Sequence[Any], words: Sequence[str]) -> list[str]:
    """Spell options as typer expects them.

    Taken are `--a_b` and `--a-b`; `--switch false`, `--switch=false` and `--noswitch`;
    `--option none` for its default; `-o` for the only option that begins so; `--ARGUMENT value`.

    Args:
        parameters: arguments and options of the command.
        words: the command line after the command.

    Returns:
        Options, unknown ones as they were, then `--` and the arguments.

    Raises:
        UserError: for an empty word, see `refuse_empty`.
    """
    refuse_empty(words)
    spelled, positional, named = list[str](), list[str](), dict[Any, str]()
    waiting = deque(words)
    while waiting:
        word = waiting.popleft()
        if word == "--":
            positional += waiting
            break
        match = OPTION.fullmatch(word)
        found, value = (_find(parameters, match[1].replace("-", "_")), match[2]) if match else (None, None)
        if match is None:
            positional.append(word)
        elif found is None:
            spelled.append(word)
        elif getattr(found, "is_flag", False):
            spelled += _switch(found, word, value, waiting)
        elif value is None and not waiting:
            return [word]  # typer says what is missing
        else:
            value = waiting.popleft() if value is None else value
            if isinstance(found, TyperArgument):
                named[found] = value
            elif found.default is not None or value.lower() not in NONE:
                spelled.append(f"{found.opts[0]}={value}")
    for place, argument in enumerate(one for one in parameters if isinstance(one, TyperArgument)):
        if argument in named:
            positional.insert(place, named[argument])
    return [*spelled, "--", *positional]


def _find(parameters: Sequence[Any], name: str) -> Any:
    """Return the parameter of a name, of `noNAME` too, or the only option with this initial."""
    for one in parameters:
        negations = (f"no{one.name}", f"no_{one.name}") if getattr(one, "is_flag", False) else ()
        if one.nargs == 1 and name in (one.name, *negations):
            return one
    initial = [one for one in parameters if isinstance(one, TyperOption) and one.name[0] == name]
    return initial[0] if len(initial) == 1 else None


def _switch(option: TyperOption, word: str, value: str | None, waiting: deque[str]) -> list[str]:
    """Spell a switch; takes the next word if that says whether it is on."""
    states = dict.fromkeys(NONE) | SWITCHES if option.default is None else SWITCHES
    if value is None:
        value = waiting.popleft() if waiting and waiting[0].lower() in states else "true"
    if value.lower() not in states:
        return [word]
    state = states[value.lower()]
    negated = word.lstrip("-").startswith("no")
    return [] if state is None else option.opts[:1] if state != negated else option.secondary_opts[:1]
