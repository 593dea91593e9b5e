"""`python -m scripts COMMAND`, installed `lung-infection COMMAND`: the commands for people.

A command's module holds its arguments and help; what does the work is imported when it is called,
so that help appears at once and MONAI Label's environment needs no package of other commands.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from typer import Exit, Option, Typer, TyperException
from typer.main import get_command

from .command_line import Command
from .commands import monai_label
from .commands.benchmark import benchmark
from .commands.calibrate import calibrate
from .commands.classify import classify
from .commands.dicom_node import dicom_node
from .commands.experiment import experiment
from .commands.figures import figures
from .commands.phantom import phantom
from .commands.prepare import prepare
from .commands.preview import preview
from .commands.publish import publish
from .commands.radiograph import radiograph
from .commands.segment import segment
from .commands.view import view
from .errors import find_user_error
from .messages import escaped, shown_messages, steady_output
from .version import bundle_version

PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Product": (segment, view, preview, dicom_node),
    "Data": (prepare, phantom),
    "Training": (experiment, calibrate, publish),
    "Research": (benchmark, classify, figures, radiograph),
}
HELP: dict[str, Any] = {
    "no_args_is_help": True,
    "context_settings": {
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda word: word.replace("-", "_"),
    },
}


def print_version(asked: bool) -> None:
    """Print the bundle's version and end, if it was asked for."""
    if asked:
        print(bundle_version())
        raise Exit


VersionOption = Annotated[bool, Option("--version", is_eager=True, callback=print_version, help="Print the version.")]


def build() -> Typer:
    """Build the application of all commands."""
    is_program = Path(sys.argv[0]).name != "__main__.py"  # a shell completes programs, not `python -m`
    app = Typer(help="Find COVID-19 infection on chest CT.", add_completion=is_program, **HELP)

    @app.callback()
    def options(version: VersionOption = False) -> None:
        pass

    for panel, commands in PANELS.items():
        for command in commands:
            name = command.__name__
            app.command(name.replace("_", "-"), cls=Command, rich_help_panel=panel)(command)
            if "_" in name:  # spelt either way, as options are
                app.command(name, cls=Command, hidden=True)(command)
    label = Typer(help="Set up the MONAI Label app and choose among its checkpoints.", **HELP)
    for command in (monai_label.assemble, monai_label.checkpoints, monai_label.back, monai_label.use):
        label.command(command.__name__, cls=Command)(command)
    app.add_typer(label, name="monai_label", rich_help_panel="Product")
    return app


def wrong_use(error: TyperException) -> str:
    """Say in one line what was wrong with the words of a command line."""
    context = getattr(error, "ctx", None)
    found = " ".join(error.format_message().split()).rstrip(".") or "no command"
    return f"{found}; see {context.command_path} --help" if context else found


def main() -> None:
    """Run one command; end wrong use and a user's mistake in one line and with exit code 2."""
    with steady_output():
        code = _run()
    if code:
        raise SystemExit(code)


def _run() -> Any:
    gc.set_threshold(100_000)  # imports make many objects that stay: searching them took a tenth of a scan's time
    try:
        with shown_messages():
            code = get_command(build()).main(standalone_mode=False)
    except Exception as error:
        mistake = escaped(wrong_use(error)) if isinstance(error, TyperException) else find_user_error(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        code = 2
    gc.freeze()  # nor does the interpreter search them at its end
    return code


if __name__ == "__main__":
    main()
