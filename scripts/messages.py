"""What the bundle says while it works, how a message names many things, tables and paragraphs."""

import io
import logging
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO


class _Steady(io.FileIO):
    """Take what is written also where nobody reads it any more: a closed pipe, a full disk."""

    def write(self, data: Any) -> int:
        """Write bytes, or lose them."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


@contextmanager
def steady_output() -> Iterator[None]:
    """Let nothing that is printed end a run: a closed pipe, a full disk, a terminal of ASCII."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _steady(sys.stdout, sys.__stdout__), _steady(sys.stderr, sys.__stderr__)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _steady(stream: TextIO | None, own: TextIO | None) -> TextIO:
    if stream is None:  # it was closed before the start
        return io.TextIOWrapper(io.BytesIO())
    if stream is not own:  # somebody has put another one in its place
        return stream
    stream.flush()
    lasting = io.BufferedWriter(_Steady(stream.fileno(), "wb", closefd=False))
    by_lines = stream is sys.__stderr__ or stream.isatty()
    return io.TextIOWrapper(lasting, stream.encoding, "backslashreplace", line_buffering=by_lines)


class _EscapingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(escaped, super().format(record).split("\n")))


@contextmanager
def shown_messages() -> Iterator[None]:
    """Show the bundle's own messages, not other packages', on standard error."""
    logger, handler = logging.getLogger(__package__), logging.StreamHandler()
    handler.setFormatter(_EscapingFormatter())
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def printable(name: str) -> str:
    """Return a text with what is no UTF-8 spelled out, as names of files may hold it."""
    return name.encode("utf-8", errors="backslashreplace").decode()


def escaped(text: str) -> str:
    r"""Return a text as one line that a terminal shows and does not obey.

    Control characters, line breaks, directions of writing and what is no UTF-8 are spelled out.

    >>> escaped("a" + chr(27) + "[2Jb" + chr(10) + "é")
    'a\\x1b[2Jb\\né'
    """
    return "".join(one if _is_plain(one) else one.encode("unicode_escape").decode() for one in text)


def _is_plain(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] != "C" and category not in ("Zl", "Zp")


def some(names: list[str]) -> str:
    """Return the first three names in order of the alphabet and how many more.

    >>> some(["b", "a"]), some(["1", "2", "3", "4", "5"])
    ('a, b', '1, 2, 3 and 2 more')
    """
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(sorted(names)[:3])}{rest}"


def counted(number: int, thing: str) -> str:
    """Return a number with its noun, in the plural where it is not 1.

    >>> counted(1, "slice"), counted(0, "slice")
    ('1 slice', '0 slices')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def beside(
    value: float, limit: float, beyond: Callable[[float, float], bool], write: Callable[[float, int], str], digits: int
) -> tuple[str, str]:
    """Write a value and its limit; a value beyond it gets as many decimals as show that.

    `write` takes a number and how many decimals it has at least; `digits` is where it begins.

    >>> from operator import gt
    >>> [beside(value, 0.6656, gt, "{:.{}f}".format, 1) for value in (0.66, 0.668)]
    [('0.7', '0.7'), ('0.668', '0.666')]
    """
    while (pair := (write(value, digits), write(limit, digits)))[0] == pair[1] and beyond(value, limit):
        digits += 1
    return pair


def markdown_table(head: Sequence[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """Return the lines of a table in Markdown.

    >>> markdown_table(["a", "b"], [[1, 2]])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    first, *others = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return [first, "|" + "---|" * len(head), *others]


def wrapped(paragraph: str, indent: str = "") -> str:
    """Return a paragraph in lines of at most 100 columns, those after the first indented.

    No-break spaces hold words together and become spaces.

    >>> len(wrapped("a" * 60 + " " + "b" * 60).splitlines()), wrapped("a" + chr(160) + "b")
    (2, 'a b')
    """
    filled = textwrap.fill(paragraph, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\N{NO-BREAK SPACE}", " ")
