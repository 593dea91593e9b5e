"""The one exception that stands for a user's mistake."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend: wrong use or unusable input.

    The message is one line that says which file, what was found and what is accepted. `python -m scripts`
    prints it without a traceback and exits with code 2; under `monai.bundle run` it is the last line.
    """
