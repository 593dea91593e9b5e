"""COVID-19 infection on chest CT: networks, training, and the way of a scan from file to report.

Importing the package changes nothing and imports nothing heavy: `InfectionSegmenter` and `Result`
are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from .api import InfectionSegmenter, Result

    __version__: str

__all__ = ["InfectionSegmenter", "Result", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name == "__version__":
        from .version import bundle_version

        return bundle_version()
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
