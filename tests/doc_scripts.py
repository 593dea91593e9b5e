"""The scripts in docs/ as modules."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from scripts.version import BUNDLE


def load_script(name: str) -> ModuleType:
    """Import docs/NAME.py."""
    found = importlib.util.spec_from_file_location(name, BUNDLE / f"docs/{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # where dataclasses look
    try:
        found.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module
