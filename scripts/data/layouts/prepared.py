"""Write a prepared data set: datalist.json beside images/, labels/, ... as links or copies.

Links are relative: the prepared folder and its sources may be moved or mounted elsewhere together,
not one without the other; with copies the prepared folder stands alone. `prepared.json` records
what was written, so that a later run replaces that and nothing else.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ...errors import UserError
from ...files import fit_name, read_json, replace_folder, unfinished_folder, write_json
from ...io.reading import file_suffix
from .case import DATALIST, FILE_KEYS, Datalist, FileKey, all_cases, all_with_paths

RECORD = "prepared.json"
_FOLDERS: dict[FileKey, str] = {
    "image": "images",
    "label": "labels",
    "lung": "lungs",
    "classes": "classes",
    "prior": "priors",
    "finer": "finer_labels",
    "second": "second_labels",
    "edge": "edges",
}


def check_output(out: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """Make sure, before any work, that writing to a folder harms nothing of the user's.

    Raises:
        UserError: `out` lies in a source or holds one, is not empty, or holds files that `prepare`
            did not write.
    """
    target = out.resolve()
    for source in (path.resolve() for path in sources):
        if target == source or target in source.parents or source in target.parents:
            raise UserError(f"{out}: lies in the source {source} or holds it; expected: a folder outside of it")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; expected: a new or empty folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{out}: is not empty; expected: a new or empty folder, or --overwrite for an earlier output")
    foreign = _not_ours(target)
    if foreign:
        raise UserError(f"{out}: holds {len(foreign)} files that prepare did not write or that changed:", *foreign)


def write_prepared(datalist: Datalist, out: Path, copy: bool) -> None:
    """Write the list and its files beside `out`, then rename the whole.

    What `out` holds is replaced; `check_output` comes first. Paths of the list are absolute.

    Raises:
        UserError: links are not possible here.
    """
    target = out.resolve()
    with unfinished_folder(target.parent) as work:
        built = work / target.name
        built.mkdir()
        places = _places(datalist)
        for source, place in tqdm(places.items(), desc="copying" if copy else "linking", delay=2.0, leave=False):
            (built / place).parent.mkdir(exist_ok=True)
            _put(Path(source[1]).resolve(), built / place, target / place, copy)
        write_json(built / DATALIST, all_with_paths(datalist, lambda key, path: places[key, path]))
        names = sorted([*places.values(), DATALIST])
        write_json(built / RECORD, {"files": {name: _state(built / name) for name in names}})
        replace_folder(built, target)


def _places(datalist: Datalist) -> dict[tuple[FileKey, str], str]:
    """Where each file goes; parts of one volume share its file."""
    places: dict[tuple[FileKey, str], str] = {}
    for case in all_cases(datalist):
        stem = case["name"].removesuffix(f"_fold{case['fold']}") if "slices" in case else case["name"]
        for key in (key for key in FILE_KEYS if key in case):
            place = f"{_FOLDERS[key]}/{fit_name(stem, file_suffix(Path(case[key])))}"
            places.setdefault((key, case[key]), place)
    if len(set(places.values())) < len(places):
        names = sorted({place for place in places.values() if list(places.values()).count(place) > 1})
        raise UserError(f"several files would become {', '.join(names)}; expected: cases of different names")
    return places


def _put(source: Path, path: Path, final: Path, copy: bool) -> None:
    if copy:
        shutil.copy2(source, path)
        return
    try:
        path.symlink_to(os.path.relpath(source, final.parent))
    except (OSError, ValueError) as error:  # no right to link, or another drive (Windows)
        raise UserError(f"{final}: cannot link to {source} ({error}); expected: --copy") from error


def _state(path: Path) -> list[int] | str:
    """Return what reveals that the user changed a file: link target, or size and time."""
    if path.is_symlink():
        return os.readlink(path)
    return [path.stat().st_size, path.stat().st_mtime_ns]


def _not_ours(folder: Path) -> list[str]:
    try:
        recorded = read_json(folder / RECORD)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        recorded = {}
    present = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    names = ((path, path.relative_to(folder).as_posix()) for path in present)
    return [name for path, name in names if recorded.get(name) != _state(path) and not (name == RECORD and recorded)]
