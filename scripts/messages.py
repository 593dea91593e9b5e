"""What the bundle says while it works, how a message names many things, tables and paragraphs."""

import logging
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def shown_messages() -> Iterator[None]:
    """Show the bundle's own messages, not other packages', on standard error."""
    logger, handler = logging.getLogger(__package__), logging.StreamHandler()
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


def some(names: list[str]) -> str:
    """Return the first three names in order of the alphabet and how many more.

    >>> some(["b", "a"]), some(["1", "2", "3", "4", "5"])
    ('a, b', '1, 2, 3 and 2 more')
    """
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(sorted(names)[:3])}{rest}"


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
