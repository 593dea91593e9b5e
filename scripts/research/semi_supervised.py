"""Train on unlabelled scans: a network labels them, and it or another one learns from them.

One scheme with settings covers what was published: CARes-UNet (one round, hard labels, a new
network, batches half of each kind), Semi-Inf-Net (rounds of five images, soft labels, the same
network goes on, two stages at the end) and plain self-training.
"""

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datalist import MASKS, Fold, digest_masks, read_datalist, select_cases
from ..data.layouts.case import DATALIST, LIST_NAMES, Case
from ..errors import UserError
from ..files import digest, read_json, unfinished_folder, write_json
from ..inference.building import require_slices
from ..inference.metadata import copy_checkpoint, metadata_path, read_metadata
from ..messages import counted
from ..settings import count, usable_device
from ..training.run_folder import BEST, claim_folder
from .pseudo_labels import check_teacher, confidence_from, pseudo_labelled, write_pseudo_labels
from .workflows import train_once

logger = logging.getLogger(__name__)

LABELS = ("hard", "soft")
STARTS = ("scratch", "previous")
MIXINGS = ("paired", "pool")
TRAIN_ON = ("labelled", "pseudo", "both")
SCHEME = "scheme.json"
TEACHER = "teacher.json"
PAIRED = "configs/paired.yaml"


class SemiSupervised:
    """Labels, trains, labels again; resumes where it was stopped.

    The output folder holds `supervised/` (unless a teacher is given), `round_NNN/` with the labels
    and the run of each round, a folder for each final stage, and `model.pt` with its metadata: the
    result. Unlabelled cases of patients in the validation fold or the test list are left out by
    name, and a data set that does not name them says so itself.

    Arguments are the ids of configs/semi_supervised.yaml, which says what each of them does. A
    final stage is {"name", "train_on", "start", "settings"}, where "train_on" is "labelled",
    "pseudo" or "both".

    Raises:
        UserError: for a setting that makes no sense, or a used output folder.
    """

    def __init__(
        self,
        training_files: Sequence[str],
        dataset_dir: str,
        output_dir: str,
        fold: Fold = 0,
        seed: int = 0,
        device: str | None = None,
        teacher: str | None = None,
        rounds: int | None = 1,
        group_size: int | None = None,
        labels: str = "hard",
        confidence: float = 0.0,
        start: str = "scratch",
        mixing: str = "paired",
        settings: Mapping[str, Any] | None = None,
        round_settings: Mapping[str, Any] | None = None,
        final: Sequence[Mapping[str, Any]] = (),
        exclude_patients: str | Sequence[str] = (),
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        choices = (("labels", labels, LABELS), ("start", start, STARTS), ("mixing", mixing, MIXINGS))
        for name, value, known in choices:
            if value not in known:
                raise UserError(f"{name} is {value!r}; expected: {', '.join(known)}")
        if rounds is None and group_size is None:
            raise UserError("rounds and group_size are both null; expected: a number of rounds or a size of the groups")
        self.training_files = list(training_files)
        self.dataset_dir = str(Path(dataset_dir).resolve())
        self.folder = Path(output_dir).resolve()
        self.fold = fold
        self.seed = int(seed)
        self.device = usable_device(device)
        self.teacher = teacher
        self.rounds = None if rounds is None else count("rounds", rounds)
        self.group_size = None if group_size is None else count("group_size", group_size)
        self.soft = labels == "soft"
        self.confidence = confidence_from(confidence)
        self.start = start
        self.mixing = mixing
        self.settings = dict(settings or {})
        self.round_settings = dict(round_settings or {})
        self.final = [dict(stage) for stage in final]
        for stage in self.final:
            if stage.get("train_on") not in TRAIN_ON or stage.get("start") not in STARTS:
                expected = f"train_on {', '.join(TRAIN_ON)}, start {', '.join(STARTS)}"
                raise UserError(f"final stage {stage}; expected: {expected}")
        names = [str(stage.get("name", "")) for stage in self.final]
        fit = [re.fullmatch(r"(?!round_|supervised$)\w[\w-]*", name) for name in names]
        if len(set(names)) < len(names) or not all(fit):
            raise UserError(f"final stages are called {names}; expected: different names that a folder can have")
        excluded = [exclude_patients] if isinstance(exclude_patients, str) else exclude_patients
        self.exclude_patients = [*map(str, excluded)]
        self.resume = resume
        self.overwrite = overwrite
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite are both true; expected: one of them")
        left_out = ("folder", "device", "resume", "overwrite")
        self.scheme = {key: value for key, value in vars(self).items() if key not in left_out}
        if self.teacher:
            metadata = check_teacher(self.teacher, self.dataset_dir, self.fold)
            self.scheme["teacher_sha256"] = str(metadata["sha256"])

    def run(self) -> Path:
        """Train; return the path of the resulting weights.

        Raises:
            UserError: if the output folder is used, or began with another scheme; if no slice is
                as sure as `confidence` asks.
        """
        unlabelled = select_cases(self.dataset_dir, "unlabeled", self.fold, self.exclude_patients)
        groups = self._groups(unlabelled)
        self._claim()
        logger.info(f"{len(unlabelled)} unlabelled cases, {len(groups)} rounds")
        weights = Path(self.teacher) if self.teacher else self._train("supervised", "labelled", None, {}, [])
        if self.mixing == "paired":
            require_slices(read_metadata(weights), weights)
        pool: list[Case] = []
        for index, group in enumerate(groups, 1):
            name = f"round_{index:03d}"
            new = self._label(group, weights, self.folder / name)
            pool = new if self.group_size is None else [*pool, *new]
            logger.info(f"{name} of {len(groups)}: {len(new)} cases labelled anew, {len(pool)} in all")
            if not pool and self.mixing == "paired":
                raise UserError(
                    f"{self.folder / name}: no slice of {counted(len(group), 'unlabelled case')} has a confidence of "
                    f"{self.confidence:g}; expected: a lower `confidence`, or a longer training before"
                )
            before, weights = weights, self._train(name, "both", weights, self.round_settings, pool)
            if index > 1 and self.group_size is not None:
                before.unlink(missing_ok=True)  # hundreds of rounds would fill a disk; their metadata and labels stay
        for stage in self.final:
            name, own = stage["name"], stage.get("settings", {})
            weights = self._train(name, stage["train_on"], weights, own, pool, stage["start"])
        with unfinished_folder(self.folder) as folder:
            copy_checkpoint(weights, folder / BEST)
            for file in (BEST, str(metadata_path(BEST))):
                (folder / file).replace(self.folder / file)
        return self.folder / BEST

    def _claim(self) -> None:
        listed = read_datalist(self.dataset_dir)
        cases = digest([listed[name] for name in LIST_NAMES])  # with other folds networks know what is validated on
        content = {"cases": cases, MASKS: digest_masks(listed, self.dataset_dir)}
        settings = {**self.scheme, **content}
        scheme = self.folder / SCHEME
        if not (self.resume and scheme.exists()):
            ours = self.overwrite and scheme.exists()
            claim_folder(
                str(self.folder), None, ours, hint=", --resume true to go on with it" if scheme.exists() else ""
            )
            if ours:
                self._remove_earlier(read_json(scheme))
        self.folder.mkdir(parents=True, exist_ok=True)
        if not scheme.exists():
            write_json(scheme, settings)
        elif (began := {**content, **read_json(scheme)}) != settings:  # up to 0.28 and 0.29 without
            changed = [key for key, value in settings.items() if began.get(key) != value]
            raise UserError(
                f"{scheme}: began with other settings ({', '.join(changed)}); expected: --resume true with "
                "the settings that it began with, or another --output_dir"
            )

    def _remove_earlier(self, scheme: Mapping[str, Any]) -> None:
        """Remove what an earlier scheme wrote, and nothing else."""
        stages = [self.folder / str(stage["name"]) for stage in scheme["final"]]
        for part in (self.folder / "supervised", *self.folder.glob("round_[0-9]*"), *stages):
            shutil.rmtree(part, ignore_errors=True)
        for name in (SCHEME, BEST, str(metadata_path(BEST))):
            (self.folder / name).unlink(missing_ok=True)

    def _groups(self, cases: list[Case]) -> list[list[Case]]:
        if self.group_size is None:
            return [cases] * (self.rounds or 1)
        order = np.random.default_rng(self.seed).permutation(len(cases))
        starts = range(0, len(cases), self.group_size)
        groups = [[cases[index] for index in order[at : at + self.group_size]] for at in starts]
        return groups[: self.rounds]

    def _label(self, group: list[Case], weights: Path, folder: Path) -> list[Case]:
        """Label cases, or take the labels that an earlier run made with the same weights."""
        teacher = folder / TEACHER
        if not teacher.exists():
            metadata = read_metadata(weights)
            write_json(teacher, {"sha256": metadata["sha256"], "threshold": metadata["operating_point"]["threshold"]})
        labels = write_pseudo_labels(weights, group, folder / "labels", self.device)
        threshold = read_json(teacher)["threshold"]
        return pseudo_labelled(group, labels, self.soft, threshold, self.confidence)

    def _train(
        self,
        name: str,
        train_on: str,
        weights: Path | None,
        settings: Mapping[str, Any],
        pseudo: list[Case],
        start: str | None = None,
    ) -> Path:
        """Train in a folder of its own unless that was done; resume a stopped training."""
        folder = self.folder / name
        write_json(folder / "data" / DATALIST, self._datalist(train_on, pseudo))
        paired = [PAIRED] if train_on == "both" and self.mixing == "paired" else []
        goes_on = weights is not None and (start or self.start) == "previous"
        return train_once(
            [*self.training_files, *paired],
            folder / "run",
            dataset_dir=str(folder / "data"),
            checkpoint=str(weights) if goes_on else None,
            fold=self.fold,
            seed=self.seed,
            device=str(self.device),
            **{**self.settings, **settings},
        )

    def _datalist(self, train_on: str, pseudo: list[Case]) -> dict[str, Any]:
        """Return a training's list: (pseudo-)labelled cases as asked, the same validation fold."""
        labelled = (
            select_cases(self.dataset_dir, "training", self.fold, more_labels=True) if train_on != "pseudo" else []
        )
        validation = select_cases(self.dataset_dir, "validation", self.fold, may_be_empty=True)
        cases = [*labelled, *validation, *(pseudo if train_on != "labelled" else [])]
        return {**read_datalist(self.dataset_dir), "training": cases, "test": [], "unlabeled": []}
