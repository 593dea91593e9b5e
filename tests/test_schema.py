from __future__ import annotations

import json
import math
from typing import Annotated, Any

import jsonschema
import pytest
from pydantic import Field

from scripts.errors import UserError
from scripts.schema import OpenRecord, Record, check_content
from scripts.version import BUNDLE
from tests.doc_scripts import load_script

write_schemas = load_script("write_schemas")


class Inner(Record):
    size: Annotated[int, Field(ge=1)]


class Outer(Record):
    inner: Inner
    several: list[Inner] | None = None
    free: dict[str, Any] = Field(default_factory=dict)


class Open(OpenRecord):
    number: float


def problems(schema: type[Any], content: Any) -> str:
    with pytest.raises(UserError) as caught:
        check_content(schema, content, "file.json")
    return str(caught.value)


def test_what_fits_passes() -> None:
    check_content(Outer, {"inner": {"size": 1}, "several": [{"size": 2}], "free": {"x": [None]}}, "file.json")
    check_content(Open, {"number": math.nan, "other": "kept"}, "file.json")


def test_a_problem_is_named_by_its_keys() -> None:
    assert problems(Outer, {"inner": {}}) == "file.json: inner.size is missing; expected: size"
    assert problems(Outer, {"inner": {"size": 1}, "several": [{"size": 1, "x": 1}]}) == (
        "file.json: several.0.x is not known; expected: size"
    )
    assert problems(Outer, 3) == "file.json: the content is 3; expected: names and values"
    assert "inner.size is True; expected: a valid integer" in problems(Outer, {"inner": {"size": True}})


def test_many_problems_are_counted() -> None:
    lines = problems(Outer, {"inner": {"size": 1}, "several": [{"size": 0}] * 25}).split("\n  ")
    assert (lines[0], len(lines), lines[-1]) == ("file.json: 25 problems:", 22, "and 5 more")


def test_a_long_value_is_shortened() -> None:
    assert len(problems(Outer, {"inner": "x" * 10_000})) < 200


@pytest.mark.parametrize("name", write_schemas.SCHEMAS)
def test_published_schemas_are_those_of_the_code(name: str) -> None:
    published = (BUNDLE / "docs/schemas" / f"{name}.json").read_text()
    assert published == write_schemas.text_of(name), "python docs/write_schemas.py"
    jsonschema.Draft202012Validator.check_schema(json.loads(published))
