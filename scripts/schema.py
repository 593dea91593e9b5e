"""Check what was read from JSON against a schema, and name every problem in one error."""

from __future__ import annotations

import reprlib
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import is_typeddict

from .errors import UserError

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""No unknown keys, no conversion of types, no NaN or infinity."""

MOST_PROBLEMS = 20
"""Problems that an error lists; the others are counted."""


class Record(BaseModel):
    """Base of a schema that knows all of its keys."""

    model_config = STRICT


class OpenRecord(BaseModel):
    """Base of a schema for a description that may hold further keys, which nothing acts on."""

    model_config = ConfigDict(extra="allow", strict=True)


def check_content(schema: type[Any], content: Any, name: str | Path) -> None:
    """Check what was read from JSON.

    Args:
        schema: a pydantic model or a TypedDict.
        content: what was read.
        name: file that it came from, for the error.

    Raises:
        UserError: names every problem by its keys, what was found and what is expected.
    """
    try:
        _adapter(schema).validate_python(content)  # type: ignore[arg-type]  # classes can be hashed
    except ValidationError as error:
        raise problems_error(name, [_problem(schema, one) for one in error.errors(include_url=False)]) from None


def fits(schema: type[Any], content: Any) -> bool:
    """Whether `check_content` would pass."""
    try:
        check_content(schema, content, "")
    except UserError:
        return False
    return True


def problems_error(name: str | Path, problems: Sequence[str]) -> UserError:
    """Return one error for all problems of a file."""
    if len(problems) == 1:
        return UserError(f"{name}: {problems[0]}")
    more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
    return UserError(f"{name}: {len(problems)} problems:", *problems[:MOST_PROBLEMS], *more)


def json_schema(schema: type[Any], title: str) -> Mapping[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what a file holds."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **_adapter(schema).json_schema(), "title": title}  # type: ignore[arg-type]  # as above


def passes(check: Callable[[Any], Any]) -> AfterValidator:
    """Make a check for a schema of a function that raises `UserError` for what it refuses."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except UserError as error:
            raise ValueError(str(error).rpartition("expected: ")[2]) from None
        return value

    return AfterValidator(validate)


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _problem(schema: type[Any], error: ErrorDetails) -> str:
    keys = [str(key) for key in error["loc"]]
    place, wanted = ".".join(keys) or "the content", error["msg"]
    if error["type"] == "missing":
        return f"{place} is missing; expected: {', '.join(_known_keys(schema, keys))}"
    if error["type"] == "extra_forbidden":
        return f"{place} is not known; expected: {', '.join(_known_keys(schema, keys))}"
    if error["type"] in ("model_type", "dict_type"):
        wanted = "names and values"
    wanted = wanted.removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{place} is {reprlib.repr(error['input'])}; expected: {wanted}"


def _known_keys(schema: type[Any], keys: Sequence[str]) -> Sequence[str]:
    """Return what the part of a schema knows that holds the last of the keys."""
    for key in keys[:-1]:
        schema = _record_in(typing.get_type_hints(schema).get(key)) or schema
    hints = typing.get_type_hints(schema)
    return [key for key in hints if not key.startswith(("model_", "__"))]


def _record_in(annotation: Any) -> type[Any] | None:
    """Return the schema in a type such as `list[Case] | None`."""
    if isinstance(annotation, type) and (is_typeddict(annotation) or issubclass(annotation, BaseModel)):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _record_in(part))), None)
