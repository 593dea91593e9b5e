"""`python -m scripts prepare SOURCE... OUT`: recognise, check and split data sets as they unzip."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from .options import Out


def prepare(
    sources: Annotated[
        list[Path], Argument(metavar="SOURCE", help="Data sets as they unzip (docs/data.md); they are not changed.")
    ],
    out: Out,
    folds: Annotated[int, Option(help="Number of cross-validation folds, 2 or more.")] = 5,
    seed: Annotated[int, Option(help="Seed of the folds.")] = 0,
    split: Annotated[
        Literal["patient", "slice"],
        Option(help="By patient, or by slice as in the paper, where slices of one scan are in several folds."),
    ] = "patient",
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

    check_output(out, sources, overwrite)
    names = read_held_out(held_out) if held_out else ()
    datalist, facts = build_datalist(sources, folds, seed, split, names)
    write_prepared(datalist, out, copy)
    print(f"{out}: {datalist['name']} ({datalist['layout']}), split by {split}, seed {seed}")
    print(summary_table(datalist, facts).to_string())
    for warning in datalist["warnings"]:
        print(f"warning: {warning}")
