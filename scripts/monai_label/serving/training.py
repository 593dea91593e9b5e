"""Train on what annotators labelled, and say how a training goes."""

import logging
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.async_tasks.utils import processes, tasks

from ..train_stats import finished_stats, running_stats
from .model_masks import UNCHANGED, ModelMasks
from .studies import check_annotations

logger = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"


class InfectionTrain(BundleTrainTask):
    """Train from the weights in use or, with `pretrained: false`, from random ones."""

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> Any:
        """Train; replace the empty run id of 3D Slicer, which would resolve every section."""
        self._pretrained = bool(request.get("pretrained", True))
        # MONAI Label adds the loader of weights to this configuration: the next call would find it.
        self.bundle_config = self._load_bundle_config(self.bundle_path, self.bundle_config_path)
        super().__call__({**request, "run_id": request.get("run_id") or "run"}, datastore)
        return {**self.stats(), **({"warnings": self._warnings} if self._warnings else {})}

    def config(self) -> dict[str, Any]:
        """Return a client's settings without MLflow tracking, which the configs lack."""
        known = {name: value for name, value in super().config().items() if not name.startswith("tracking")}
        return {**known, "unchanged_labels": False}

    def stats(self) -> dict[str, Any]:
        """Return what clients show: of the training that runs, or else of the weights in use."""
        for task in tasks("train"):
            if task["id"] in processes("train") and task["request"]["model"] == Path(self.bundle_path).name:
                epochs = int(task["request"].get("max_epochs", self.config()["max_epochs"]))
                return running_stats(self._deployment, epochs, task["start_ts"])
        return finished_stats(self._deployment)

    @property
    def _deployment(self) -> Path:
        return Path(self.bundle_path).resolve().parents[2]

    def _fetch_datalist(self, request: Mapping[str, Any], datastore: Datastore) -> list[Any]:
        labelled: list[Any] = super()._fetch_datalist(request, datastore)
        datalist = labelled if request.get("unchanged_labels", False) else self._corrected(labelled)
        left_out = [case["label"] for case in labelled if case not in datalist]
        self._left_out = len(left_out)
        empty = check_annotations(datalist)
        found = [f"{label}: {UNCHANGED}; left out" for label in left_out]
        if datalist and len(empty) == len(datalist):
            found.append("no label marks any infection")
        for warning in found:
            logger.warning(warning)
        self._warnings = [*empty, *found]
        return datalist

    def _corrected(self, labelled: list[Any]) -> list[Any]:
        """Leave out labels that the model itself made."""
        masks = ModelMasks(self._deployment)
        return [case for case in labelled if not masks.holds(case["label"], case["image"])]

    def _partition_datalist(
        self, datalist: list[Any], request: Mapping[str, Any], shuffle: bool = False
    ) -> tuple[list[Any], list[Any] | None]:
        training, validation = super()._partition_datalist(datalist, request, shuffle)
        if not training:
            text = f"{len(datalist) + self._left_out} scans have a final label"
            if self._left_out:
                text += f", {self._left_out} of them {UNCHANGED} (`unchanged_labels` takes them),"
            text += " and none is left to train on"
            raise HTTPException(400, f"{text}; expected: more labelled scans, or a smaller val_split")
        return training, validation

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        if pretrained:
            super()._load_checkpoint(model_pytorch, pretrained, train_handlers)

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides["pretrained"] = self._pretrained
        return overrides

    def run_multi_gpu(self, request: Mapping[str, Any], cmd: list[str], env: Mapping[str, str]) -> None:
        """Run torchrun; MONAI Label's own takes any end of it for a success.

        `env` counts the GPUs that this process sees, where CUDA expects the machine's.
        """
        gpus = env[VISIBLE]
        if own := os.environ.get(VISIBLE):
            names = dict(enumerate(own.split(",")))
            gpus = ",".join(names.get(int(number), number) for number in gpus.split(","))
        subprocess.run(cmd, env={**env, VISIBLE: gpus}, check=True)
