"""What `segment` prints while it works."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..messages import counted, escaped
from ..pipeline.inputs import ScanInput


@contextmanager
def resumable(progress: CaseProgress, output: Path) -> Iterator[None]:
    """End a run at Ctrl-C and SIGTERM in one line that says what is kept, with exit code 130."""
    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    if main:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{progress.ended} of {progress.cases} cases ended; their results are kept in {escaped(str(output))}"
        print(f"stopped: {kept}; the same command resumes", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


class CaseProgress:
    """Show a progress bar, and one line for each case that ended.

    The bar shows the slices of the case at work; with `one_bar` the cases of the run, because
    several are at work.
    """

    def __init__(self, cases: int, quiet: bool, one_bar: bool = False) -> None:
        self.cases = cases
        self.ended = 0
        self.quiet = quiet
        self.bar: tqdm[Any] | None = None
        self.one_bar = one_bar

    def __enter__(self) -> CaseProgress:
        if self.one_bar:
            self.bar = tqdm(total=self.cases, unit="scan", disable=self.quiet)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def step(self, case: ScanInput, done: int, of: int) -> None:
        """Advance the bar of a case by `done` of its `of` slices."""
        if self.one_bar:
            return
        if self.bar is None:
            label = f"{escaped(case.folder)} ({self.ended + 1}/{self.cases})"
            self.bar = tqdm(total=of, desc=label, unit="slice", leave=False, disable=self.quiet)
        self.bar.update(done)

    def finish(self, case: ScanInput, entry: dict[str, Any]) -> None:
        """Print how a case ended."""
        if not self.one_bar:
            self._close()
        self.ended += 1
        if entry["status"] in ("refused", "failed"):
            tqdm.write(f"error: {escaped(entry['message'])}", file=sys.stderr)
        elif not self.quiet:
            warnings = f", {counted(entry['warnings'], 'warning')}" if entry["warnings"] else ""
            tqdm.write(f"{escaped(case.folder)}: {entry['status']}{warnings}, {', '.join(entry['files'])}")
        if self.one_bar and self.bar is not None:
            self.bar.update()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
