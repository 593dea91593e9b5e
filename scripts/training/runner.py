"""Check a workflow's ids before it runs, and end the runner's mistakes in one line.

MONAI's runner takes any `--id value` and adds what the configs do not have; it shows a screen of
frames for every mistake. A workflow that a Python program runs keeps that program's ways: only ids
and arguments are checked there.
"""

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pydoc import ErrorDuringImport, locate
from types import TracebackType
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ConfigExpression
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS, MERGE_KEY
from monai.utils import BundlePropertyConfig

from ..errors import UserError, causes, find_user_error, in_bundle_runner, refuse_empty
from ..version import BUNDLE
from .callers import calling

SEPARATOR = ReferenceResolver.sep


def begin(kept: Callable[[], str]) -> None:
    """Refuse ids that no config knows; make mistakes end in one line in the runner's process.

    Args:
        kept: says what a run that is interrupted leaves, in one line.

    Raises:
        UserError: names the unknown ids, or an argument that a component does not have; for an
            empty word on the runner's command line.
    """
    if in_bundle_runner():
        sys.excepthook = last_lines(kept)
        refuse_empty(sys.argv[1:])
    workflow = calling(ConfigWorkflow)
    if workflow is not None:
        refuse_unknown_ids(workflow.parser.config, [workflow.init_id, workflow.run_id, workflow.final_id])
        refuse_unknown_arguments(workflow.parser)


def last_lines(kept: Callable[[], str]) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """Return a hook for uncaught exceptions that ends with the line that helps.

    A user's mistake is that line alone, an interruption says what is kept. A missing package keeps
    its traceback and is named below it. Anything else is reported as usual.

    Args:
        kept: see `begin`.
    """

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        mistake = find_user_error(error)
        if mistake is not None:
            print(f"error: {mistake}", file=sys.stderr)
        elif issubclass(kind, KeyboardInterrupt):
            print(f"\nstopped: {kept()}", file=sys.stderr)  # below the progress bar
        else:
            sys.__excepthook__(kind, error, traceback)
            package = missing_package(error)
            if package is not None:
                print(
                    f"error: the package {package} is not installed; expected: pip install {package}", file=sys.stderr
                )

    return hook


def missing_package(error: BaseException | None) -> str | None:
    """Return the package whose absence is at the root of a chain of exceptions, or None."""
    for one in causes(error):
        found = re.search(r"No module named '([\w-]+)", str(one)) if isinstance(one, ImportError) else None
        if found and found[1] != __name__.split(".")[0]:
            return found[1]
    return None


def refuse_unknown_ids(config: Mapping[str, Any], run_ids: list[str]) -> None:
    """Refuse ids that nothing refers to and no config file has: MONAI's runner would ignore them.

    Args:
        config: content of the config files with what the command line set.
        run_ids: ids that the runner itself looks for.

    Raises:
        UserError: names them, with the most similar ids.
    """
    unknown = unknown_ids(config, run_ids)
    if not unknown:
        return
    known = set(_ids(config)) - set(unknown)
    named = [f"--{one.replace(SEPARATOR, '#')}{_similar(one, known)}" for one in unknown]
    expected = "ids that the config files use (in a file of your own, a note begins with _)"
    raise UserError(f"{', '.join(named)}: no config has a use for such an id; expected: {expected}")


def unknown_ids(config: Mapping[str, Any], run_ids: list[str]) -> list[str]:
    """Return the ids of a config that MONAI, the config itself and the bundle's files do not know.

    Arguments of components are not looked at, see `refuse_unknown_arguments`.
    """
    references = {reference for text in _texts(config) for reference in ReferenceResolver.match_refs_pattern(text)}
    references |= {
        one[BundlePropertyConfig.ID] for group in (TrainProperties, InferProperties) for one in group.values()
    }
    references |= {*run_ids, *DEFAULT_MLFLOW_SETTINGS["configs"], "displayable_configs"}  # the last by MONAI Label
    found = {one for one in _ids(config) if not any(_within(one, known) for known in references)}
    for path in sorted((BUNDLE / "configs").rglob("*.yaml"), key=lambda path: -path.stat().st_size):
        if not found:
            break
        known = set(_ids(ConfigParser.load_config_file(path)))
        if {one.split(SEPARATOR)[0] for one in known} <= config.keys():  # else it is no part of this run
            found -= known
    return sorted(found)


def refuse_unknown_arguments(parser: ConfigParser) -> None:
    """Refuse the first argument that its component does not have, before anything is loaded.

    Components that are named by a reference or an expression, or cannot be imported, report
    themselves once they are made.

    Args:
        parser: configs with what the command line set.

    Raises:
        UserError: names the argument, and those that the component has.
    """
    for one, settings in _components(parser.config):
        component = ConfigComponent(settings, locator=parser.locator)
        target = component.resolve_module_name()
        known = _arguments(target)
        unknown = [] if known is None else [name for name in component.resolve_args() if name not in known]
        if unknown:
            raise UserError(
                f"--{one}#{unknown[0]}: {target} has no such argument; expected: one of {', '.join(known or ['none'])}"
            )


def _components(config: Any, above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the components whose target is a name, each with its id as the command line has it."""
    if isinstance(config, Mapping):
        target = config.get("_target_")
        if isinstance(target, str) and not target.startswith((ReferenceResolver.ref, ConfigExpression.prefix)):
            yield above, config
        parts: Iterable[tuple[Any, Any]] = config.items()
    else:
        parts = enumerate(config) if isinstance(config, list) else ()
    for name, part in parts:
        yield from _components(part, f"{above}#{name}".lstrip("#"))


def _arguments(target: str) -> list[str] | None:
    """Return the names that a component takes, or None where that is not known or any will do."""
    try:
        component = locate(target)
        if not callable(component):
            return None
        parameters = inspect.signature(component).parameters.values()
    except (ErrorDuringImport, ValueError):  # a package that is not there; code written in C
        return None
    return None if any(one.kind is one.VAR_KEYWORD for one in parameters) else [one.name for one in parameters]


def _ids(config: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the ids in a config but for metadata, notes, imports and arguments of components."""
    for name, value in config.items():
        if name.startswith("_") or _imports(value):
            continue
        here = above + ReferenceResolver.normalize_id(name.lstrip(MERGE_KEY))
        yield here
        if isinstance(value, Mapping) and "_target_" not in value:
            yield from _ids(value, here + SEPARATOR)


def _texts(config: Any) -> Iterator[str]:
    if isinstance(config, str):
        yield config
    elif isinstance(config, Mapping | list):
        for part in config.values() if isinstance(config, Mapping) else config:
            yield from _texts(part)


def _imports(value: Any) -> bool:
    return any(ConfigExpression.is_import_statement(text) for text in _texts(value))


def _within(one: str, other: str) -> bool:
    """Whether one of two ids is the other, above it or below it."""
    return f"{one}{SEPARATOR}".startswith(f"{other}{SEPARATOR}") or f"{other}{SEPARATOR}".startswith(
        f"{one}{SEPARATOR}"
    )


def _similar(unknown: str, known: set[str]) -> str:
    likely = sorted(one for one in known if one.split(SEPARATOR)[0] not in ("given", "switch"))  # those read others
    close = difflib.get_close_matches(unknown, likely, n=1) or [one for one in likely if one.endswith(unknown)][:1]
    return f" ({close[0].replace(SEPARATOR, '#')}?)" if close else ""
