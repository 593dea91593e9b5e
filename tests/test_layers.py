"""The order of the layers: which package of `scripts` may import which, as docs/code.md says."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "scripts"
LAYERS = (
    ("messages", "version"),
    ("errors",),
    ("files", "finite", "precision", "schema", "settings"),
    ("anatomy", "metrics"),
    ("io",),
    ("losses", "networks", "transforms"),
    ("data",),
    ("inference",),
    ("report", "training"),
    ("pipeline", "monai_label"),
    ("research", "api", "pacs", "viewer"),
    ("commands", "command_line"),
    ("__main__", "__init__"),
)
"""The lowest first; a package or single file imports from itself and from lower layers."""
LAYER = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}
COPIED = {"monai_label/server.py", "monai_label/torchvision_on_cpu.py"}
"""Run from a copy outside of the package: their imports cannot be relative."""

MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


def name_of(file: str) -> str:
    """`io/dicom/reading.py` to `io.dicom.reading`, `io/__init__.py` to `io`,
    `__init__.py` to ``."""
    return file.removesuffix(".py").removesuffix("__init__").rstrip("/").replace("/", ".")


NAMES = {name_of(file) for file in MODULES}


def imports(file: str) -> Iterator[str]:
    """Modules of the package that a file imports anywhere, what is for type checkers too."""
    folder = file.split("/")[:-1]
    for node in ast.walk(ast.parse(MODULES[file].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "scripts"):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            base = [*above, *(node.module.split(".")[0 if node.level else 1 :] if node.module else [])]
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                yield whole if whole in NAMES else ".".join(base)


def package(name: str) -> str:
    """First part of a file's or module's name."""
    return name.removesuffix(".py").replace("/", ".").split(".")[0]


def test_a_package_imports_from_below() -> None:
    upwards = {
        f"{file} imports {other}"
        for file in MODULES
        for other in imports(file)
        if other and package(other) != package(file) and LAYER[package(other)] >= LAYER[package(file)]
    }
    assert upwards == set()


def test_every_package_has_its_layer() -> None:
    assert {name.split(".")[0] for name in NAMES} - {""} <= LAYER.keys()


def test_no_circle_of_imports() -> None:
    graph = {name_of(file): set(imports(file)) - {name_of(file)} for file in MODULES}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_imports_within_the_package_are_relative() -> None:
    """So that the same files are `scripts` in the bundle and `lung_infection_ct` where they are
    installed."""
    absolute = {
        f"{file}:{node.lineno}"
        for file in MODULES.keys() - COPIED
        for node in ast.walk(ast.parse(MODULES[file].read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "scripts")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "scripts" for alias in node.names))
    }
    assert absolute == set()
