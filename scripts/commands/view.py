"""`python -m scripts view RESULTS`: look at results slice by slice in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import Limit, limits_of


def view(
    results: Annotated[Path, Argument(help="What `segment` wrote: OUTPUT, or the folder of one case in it.")],
    prior: Annotated[
        Path | None, Option(metavar="RESULTS", help="Folder of an earlier case, shown beside each one.")
    ] = None,
    port: Annotated[int, Option(min=0, max=65535, help="Port on loopback; 0: one that is free.")] = 0,
    browser: Annotated[bool, Option(help="Open the page in the browser.")] = True,
    limit: Limit = None,
) -> None:
    """Show scan, mask and lesions in the browser.

    Serves them to this machine only, under an address with a token. Stop it with Ctrl-C.
    """
    import signal
    import sys
    import webbrowser
    from threading import Event

    from ..viewer.results import check_source, find_case, find_cases, unchecked_remark
    from ..viewer.server import serving
    from ..viewer.site import build_site

    cases = find_cases(results)
    earlier = find_case(prior) if prior else None
    for one in [*(cases if len(cases) == 1 else []), *([earlier] if earlier else [])]:
        check_source(one)
        if remark := unchecked_remark(one):
            print(remark, file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with limits_of(limit), serving(build_site(cases, earlier), port) as address:
            page = address if len(cases) > 1 else f"{address}1/"
            print(f"{page}\nCtrl-C ends it.", flush=True)
            if browser:
                webbrowser.open(page)
            Event().wait()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
