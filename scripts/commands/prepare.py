"""`python -m scripts prepare SOURCE... OUT`: recognise, check and split data sets as they unzip."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..errors import UserError
from .options import Out


def prepare(
    sources: Annotated[
        list[Path], Argument(metavar="SOURCE", help="Data sets as they unzip (docs/data.md); they are not changed.")
    ],
    out: Out,
    folds: Annotated[int, Option(help="Number of cross-validation folds, 2 or more.")] = 5,
    seed: Annotated[int, Option(help="Seed of the folds and of what --test and --validation draw.")] = 0,
    split: Annotated[
        str,
        Option(
            help="patient; slice as in the paper, where slices of one scan are in several folds; or numbers of "
            "scans for training/validation/test, such as 14/2/4, each patient in one of them."
        ),
    ] = "patient",
    test: Annotated[int, Option(help="Number of scans, or slices by --split slice, to draw as test cases.")] = 0,
    validation: Annotated[
        int | None, Option(help="Number of scans, or slices, of the one validation fold; default: --folds.")
    ] = None,
    test_data: Annotated[
        list[Path] | None,
        Option(help="A data set to test on; training cases that it may hold are left out. May be repeated."),
    ] = None,
    held_out: Annotated[
        Path | None,
        Option(help="List of patients and scans that no training may see, such as configs/held_out.txt."),
    ] = None,
    copy: Annotated[bool, Option("--copy", help="Copy the files instead of linking to them.")] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace an earlier output of this command, and nothing else.")
    ] = False,
) -> None:
    """Check and split public data sets, and write OUT/datalist.json.

    OUT/images and OUT/labels hold relative links: OUT and the sources can be moved together, or OUT
    alone with --copy.
    """
    from ..data.held_out import read_held_out
    from ..data.layouts.build import build_datalist, summary_table
    from ..data.layouts.prepared import check_output, write_prepared
    from ..data.parts import read_split

    tests = test_data or []
    check_output(out, [*sources, *tests], overwrite)
    unit, sizes = read_split(split, validation, test)
    if tests and sizes.test:
        raise UserError("--test-data with drawn test cases; expected: one of both")
    names = read_held_out(held_out) if held_out else ()
    datalist, facts = build_datalist(sources, folds, seed, unit, names, sizes, tests)
    write_prepared(datalist, out, copy)
    print(f"{out}: {datalist['name']} ({datalist['layout']}), split by {unit}, seed {seed}")
    print(summary_table(datalist, facts).to_string())
    for warning in datalist["warnings"]:
        print(f"warning: {warning}")
