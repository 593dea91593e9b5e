"""Check the values of a request: known names, typed values, nothing that MONAI evaluates.

MONAI Label copies values of a request into the bundle's configuration. MONAI's ConfigParser then
runs a text that starts with `$` as Python, follows one that starts with `@` or `%`, and calls what
the key `_target_` names. So every value is checked here before anything else sees it, and a name
that is not listed here goes no further.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UserError

Check = Callable[[Any], Any]
"""Returns the value in its type, or raises ValueError with what is expected."""

SPECIAL = ("$", "@", "%")
SPECIAL_KEYS = ("_target_", "_requires_", "_disabled_", "_mode_", "_desc_", "_meta_")
TAG_OF_ANNOTATORS = "final"
WEIGHTS = "model.pt"
_LONGEST = 60
_DEEPEST = 20


def refuse_evaluated(value: Any, name: str, depth: int = 0) -> None:
    """Refuse what MONAI's ConfigParser would evaluate, at any depth.

    Raises:
        UserError: for a text or key that starts with `$`, `@` or `%`, a key such as `_target_`, or
            deep nesting.
    """
    if depth > _DEEPEST:
        raise UserError(f"{name}: nested more than {_DEEPEST} times; expected: fewer")
    if isinstance(value, str) and value.lstrip().startswith(SPECIAL):
        raise UserError(f"{name} is {_short(value)}; expected: no text that starts with $, @ or %")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            refuse_evaluated(key, f"a key of {name}", depth + 1)
            if str(key).strip() in SPECIAL_KEYS:
                raise UserError(f"a key of {name} is {_short(key)}; expected: none of {', '.join(SPECIAL_KEYS)}")
            refuse_evaluated(inner, name, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            refuse_evaluated(inner, name, depth + 1)


def check_request(kind: str, request: Mapping[str, Any], devices: Sequence[str] = ()) -> dict[str, Any]:
    """Return the values of a request that are used, each in its type.

    Args:
        kind: a key of `KINDS`.
        request: what MONAI Label made of a request.
        devices: names of devices that the server advertises, beside cpu, mps, cuda and cuda:N.

    Raises:
        UserError: for an unknown name, a value of the wrong type, or one that MONAI would evaluate.
    """
    used, unused = KINDS[kind], UNUSED
    checked: dict[str, Any] = {}
    for name, value in request.items():
        if name not in used and name not in unused:
            known = ", ".join(sorted(used))
            raise UserError(f"{kind}: unknown name {_short(name)}; expected: {known}")
        refuse_evaluated(value, name)
        if name not in used:
            continue
        if name == "device" and _first(value) in devices:
            checked[name] = _first(value)
            continue
        try:
            checked[name] = used[name](value)
        except ValueError as error:
            raise UserError(f"{name} is {_short(value)}; expected: {error}") from None
    return checked


def without_settings(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request without what clients send as settings of its model or method, by its name.

    The names are of any type still: they are checked later.
    """
    named = [request.get("model"), request.get("method")]
    return {name: value for name, value in request.items() if not (name in named and isinstance(value, dict))}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _first(value: Any) -> Any:
    """Take the first of a list: clients send advertised choices back as they are."""
    return value[0] if isinstance(value, list) and value else value


def _text(pattern: str, expected: str) -> Check:
    def check(value: Any) -> str:
        one = _first(value)
        if not isinstance(one, str) or not re.fullmatch(pattern, one):
            raise ValueError(expected)
        return one

    return check


def _choice(*choices: str) -> Check:
    return _text("|".join(map(re.escape, choices)), " or ".join(repr(choice) for choice in choices))


def _number(value: Any) -> float:
    """Check a finite number; 3D Slicer's table of options sends it as text."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = value if isinstance(value, int) else float(value)
            if math.isfinite(number):
                return number
        except (ValueError, OverflowError):
            pass
    raise ValueError("a number")


def _whole(least: int) -> Check:
    def check(value: Any) -> int:
        try:
            number = _number(value)
        except ValueError:
            number = math.nan
        if not number >= least or number != int(number):
            raise ValueError(f"a whole number from {least} on")
        return int(number)

    return check


def _fraction(value: Any) -> float:
    """Check the fraction of scans for validation; MONAI Label takes -1 for the bundle's own."""
    number = _number(value)
    if not (0 <= number < 1 or number == -1):
        raise ValueError("a number from 0 to below 1, or -1")
    return number


def _flag(value: Any) -> bool:
    text = str(value).lower()
    if not isinstance(value, bool | str | int) or text not in ("true", "false", "1", "0"):
        raise ValueError("true or false")
    return text in ("true", "1")


def _names(value: Any) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError("a list of names")
    return [NAME([one]) for one in value]


def _images(value: Any) -> str | list[str]:
    """Which scans: a word, or their ids."""
    if isinstance(value, list):
        return [IMAGE([one]) for one in value]
    return str(_choice("all", "labeled", "unlabeled")(getattr(value, "value", value)))


def _label_info(value: Any) -> list[dict[str, Any]]:
    """How a client calls and draws the segments."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError('a list of segments, such as [{"name": "infection"}]')
    return value


def _model_tag(value: Any) -> str:
    """Check the tag of a mask that the model makes; it learns from annotators' tags."""
    tag = NAME(value)
    if tag == TAG_OF_ANNOTATORS:
        raise ValueError(f"another tag, {TAG_OF_ANNOTATORS!r} is for what annotators save")
    return str(tag)


def _tracking(value: Any) -> str:
    """No records elsewhere: a text here names a file that MONAI evaluates."""
    return "None" if _first(value) in (None, "") else str(_choice("None", "none")(value))


NAME = _text(r"[\w.+-][\w .+-]{0,127}", "a name of letters, digits and . _ + -")
IMAGE = _text(r"[^\x00-\x1f]{1,1024}", "the id of a scan")
_DEVICE = _text(r"(cpu|mps|cuda)(:\d{1,3})?", "cpu, mps, cuda, cuda:N, or a device that /info lists")
_GPUS = _text(r"all|\d{1,3}(,\d{1,3})*", "'all', or numbers such as '0,1'")
_WEIGHTS = _choice(WEIGHTS)

_EVERY: dict[str, Check] = {"model": NAME, "device": _DEVICE, "multi_gpu": _flag, "gpus": _GPUS}

_INFER: dict[str, Check] = {
    "model": NAME,
    "image": IMAGE,
    "device": _DEVICE,
    "threshold": _number,
    "smallest_lesion_mm3": _number,
    "keep_outside": _flag,
    "backend": _choice("auto", "torch", "openvino"),
    "precision": _choice("auto", "fp32", "bf16"),
    "model_filename": _WEIGHTS,
    "result_extension": _choice(".nii.gz", ".nii", ".nrrd", ".seg.nrrd"),
    "result_dtype": _choice("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"),
    "result_compress": _flag,
    "save_label": _flag,
    "label_tag": _model_tag,
    "logging": _text(r"(?i)debug|info|warning|error|critical", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    "timeout": _whole(1),
}

KINDS: dict[str, dict[str, Check]] = {
    "infer": {**_INFER, "label_info": _label_info},
    "batch_infer": {
        **_INFER,
        **_EVERY,
        "images": _images,
        "labels": _names,
        "max_workers": _whole(0),
        "max_batch_size": _whole(0),
    },
    "train": {
        **_EVERY,
        "pretrained": _flag,
        "unchanged_labels": _flag,
        "max_epochs": _whole(1),
        "val_split": _fraction,
        "force_multi_gpu": _flag,
        "tracking": _tracking,
        "run_id": _choice("", "run", "training"),
        "model_filename": _WEIGHTS,
        "local_rank": _whole(0),
    },
    "scoring": {
        **_EVERY,
        "method": NAME,
        "max_samples": _whole(0),
        "simulation_size": _whole(2),
        "max_workers": _whole(0),
    },
    "activelearning": {"strategy": NAME, "label_tag": NAME, "labels": _names},
}
"""What each kind of request may say."""

_TRACKING = {"tracking_uri", "tracking_experiment_name", "tracking_run_name"}
_SEGMENTS = {"label", "label_info", "label_prompt", "restore_label_idx"}
UNUSED = frozenset({"client_id", "user", "description", "session", "bundle_path"} | _SEGMENTS | _TRACKING)
"""What MONAI Label and its clients send beside that; checked and left out, because nothing here
needs it."""
