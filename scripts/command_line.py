"""What stands between the words of a command line and a command: Fire, made strict."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, get_args, get_type_hints

from fire.decorators import SetParseFn, SetParseFns

from .errors import UserError
from .settings import flag, number, optional

Command = TypeVar("Command", bound=Callable[..., Any])


def typed(command: Command) -> Command:
    """Makes Fire read every word as the annotation of its argument says.

    Fire reads words as Python: it would take a file called `run#2` for `run`, `20200301_1200` for a
        number and
    `--overwrite false` for a text, which is true.

    Args:
        command: a function whose arguments are annotated with str, bool, int or float, or one of
            these and None.

    Returns:
        The same function.
    """
    kinds = get_type_hints(command)
    readers = {name: partial(_read, name, kinds[name]) for name in inspect.signature(command).parameters}
    marked: Command = SetParseFns(**readers)(SetParseFn(str)(command))
    return marked


def refuse_unknown_options(command: Callable[..., Any], words: Sequence[str]) -> None:
    """Refuses an option that the command does not have; Fire would say so after the command has run.

    Args:
        command: see `typed`.
        words: the command line after the command.

    Raises:
        UserError: names the option and those that there are.
    """
    parameters = inspect.signature(command).parameters.values()
    names = [one.name for one in parameters if one.kind is not inspect.Parameter.VAR_POSITIONAL]
    expected = {*names, *(f"no{name}" for name in names), *(name[0] for name in names), "help", "h"}
    for word in words:
        option = re.match(r"--?([A-Za-z][\w-]*)", word)
        if option and option[1].replace("-", "_") not in expected:
            raise UserError(f"{word}: no such option; expected: {', '.join(f'--{name}' for name in names)}")


def _read(name: str, kind: Any, word: str) -> Any:
    kinds = get_args(kind) or (kind,)
    if type(None) in kinds and optional(word) is None:
        return None
    if bool in kinds:
        return flag(word, f"--{name}")
    if int in kinds:
        return int(number(f"--{name}", word, "a whole number", float.is_integer))
    return number(f"--{name}", word, "a number") if float in kinds else word
