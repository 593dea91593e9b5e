"""Every tensor may lie on a GPU: the package copies it to the host before numpy reads it."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "scripts"


def calls(node: ast.AST, name: str) -> bool:
    """Whether a node is the call of a method of that name."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name


def test_a_tensor_is_copied_to_the_host_before_numpy_reads_it() -> None:
    """The refusing device shows it where a workflow passes; this holds it on every line."""
    unguarded = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if calls(node, "numpy") and not calls(node.func.value, "cpu")
    }
    assert unguarded == set()
