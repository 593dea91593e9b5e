"""Every tensor may lie on a GPU: the package copies it to the host before numpy reads it."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "scripts"
HOST_COPIES = {"cpu", "numpy", "convert_to_numpy"}


def calls(node: ast.AST, name: str) -> bool:
    """Whether a node is the call of a method of that name."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name


def on_host(node: ast.AST) -> bool:
    """Whether an expression is numpy's, a copy on the host, or a name, whose type is not known."""
    if not isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        return True
    parts = list(ast.walk(node))
    called = {getattr(one.func, "attr", getattr(one.func, "id", "")) for one in parts if isinstance(one, ast.Call)}
    return bool(called & HOST_COPIES) or any(isinstance(one, ast.Name) and one.id == "np" for one in parts)


def test_a_tensor_is_copied_to_the_host_before_numpy_reads_it() -> None:
    """The refusing device shows it where a workflow passes; this holds it on every line."""
    unguarded = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if calls(node, "numpy") and not calls(node.func.value, "cpu")
    }
    assert unguarded == set()


def test_a_tensor_is_copied_to_the_host_before_its_values_become_numbers() -> None:
    """Looks at modules that import torch; others read numpy's arrays only."""
    unguarded = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if "import torch" in (text := path.read_text(encoding="utf-8")) or "from torch" in text
        for node in ast.walk(ast.parse(text))
        if (calls(node, "tolist") or calls(node, "item")) and not on_host(node.func.value)
    }
    assert unguarded == set()
