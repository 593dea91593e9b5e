"""MONAI Label's own bundle app, with readable answers and the scan's geometry.

`make monailabel` copies this file to `app/main.py` beside `monaibundle.py`, which is MONAI Label's.
It runs in MONAI Label's environment only. The app holds one bundle with code, whose `scripts` come
before any others that the server's working directory may offer.
"""
# ruff: noqa: E402  # the bundle's folder has to be on the path first

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

sys.path[:0] = [str(folder.parent) for folder in Path(__file__).parent.glob("model/*/scripts")]

import monaibundle
import torch
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces import app
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.scoring.epistemic_v2 import EpistemicScoring
from monailabel.tasks.train.bundle import BundleTrainTask

from scripts.inference.shipped import FULL
from scripts.io.images import is_picture
from scripts.io.masks import write_mask
from scripts.monai_label.request_values import KINDS
from scripts.monai_label.serving.answers import answering
from scripts.monai_label.serving.dicom_studies import DicomStudies
from scripts.monai_label.serving.endpoints import checked, protect
from scripts.monai_label.serving.studies import NIFTI, Studies, check_annotations, stored_shape
from scripts.monai_label.serving.uploads import discarding_upload, is_upload
from scripts.transforms.postprocessing import Probabilities

EPISTEMIC = "epistemic"
DROPOUT = 0.2

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # torchrun, dcmqi

# MONAI Label would drop and import the bundle's `scripts` anew for every request, and two at a time
# stumble over each other (KeyError while importing). There is one `scripts` here, which does not
# change while the server runs.
os.environ["MONAI_LABEL_RELOAD_APP_LIB"] = "false"

logger = logging.getLogger(__name__)

STRICT = {"load_strict": True, "extend_load_image": False}
"""Every key of the weights must fit; images are loaded by the bundle alone, whose labels may be
absent."""


class InfectionInfer(BundleInferTask):
    """Inference: a NIfTI answer has the scan's own header."""

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        super().__init__(path, conf, **STRICT)

    def writer(self, data: dict[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[Any, Any]:
        """Write the mask; MONAI Label's own writer handles axes at right angles only."""
        scan = str(data["image_path"])
        wanted = str(extension or data.get("result_extension") or "".join(Path(scan).suffixes))
        if not scan.endswith(NIFTI) or not wanted.endswith(NIFTI):
            return super().writer(data, extension, dtype)
        suffix = ".nii.gz" if wanted.endswith(".gz") else ".nii"
        with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as file:
            mask = data[self.output_label_key].cpu().numpy().reshape(data["image"].meta["spatial_shape"])
            write_mask(mask.astype("uint8"), scan, file.name)
        return file.name, {}


class InfectionScoring(BundleInferTask):
    """Monte Carlo dropout on the network's grid, with batch normalisation as in inference."""

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        super().__init__(path, conf, **STRICT, train_mode=True, skip_writer=True, dropout=DROPOUT)

    def post_transforms(self, data: Any = None) -> list[Callable[..., Any]]:
        """Stop at probabilities, because the entropy of a thresholded mask loses information."""
        return [Probabilities()]

    def _get_network(self, device: str, data: Any) -> Any:
        """Leave only dropout in training mode, so that a score is independent of the batch."""
        network = super()._get_network(device, data)
        for layer in network.modules():
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                layer.eval()
        return network


class InfectionTrain(BundleTrainTask):
    """Train from the weights in use or, with `pretrained: false`, from random ones."""

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> Any:
        """Train; replace the empty run id of 3D Slicer, which would resolve every section."""
        self._pretrained = bool(request.get("pretrained", True))
        result = super().__call__({**request, "run_id": request.get("run_id") or "run"}, datastore)
        return {**(result or {}), **({"warnings": self._warnings} if self._warnings else {})}

    def config(self) -> dict[str, Any]:
        """Return a client's settings without MLflow tracking, which the configs lack."""
        return {name: value for name, value in super().config().items() if not name.startswith("tracking")}

    def _fetch_datalist(self, request: Mapping[str, Any], datastore: Datastore) -> list[Any]:
        datalist: list[Any] = super()._fetch_datalist(request, datastore)
        self._warnings = check_annotations(datalist)
        if datalist and len(self._warnings) == len(datalist):
            self._warnings.append("no label marks any infection")
            logger.warning(self._warnings[-1])
        return datalist

    def _partition_datalist(
        self, datalist: list[Any], request: Mapping[str, Any], shuffle: bool = False
    ) -> tuple[list[Any], list[Any] | None]:
        training, validation = super()._partition_datalist(datalist, request, shuffle)
        if not training:
            text = f"{len(datalist)} scans have a final label and none is left to train on"
            raise HTTPException(400, f"{text}; expected: more labelled scans, or a smaller val_split")
        return training, validation

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        if pretrained:
            super()._load_checkpoint(model_pytorch, pretrained, train_handlers)

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides["pretrained"] = self._pretrained
        return overrides

    def run_multi_gpu(self, request: Mapping[str, Any], cmd: list[str], env: Mapping[str, str]) -> None:
        """Run torchrun; MONAI Label's own takes any end of it for a success."""
        subprocess.run(cmd, env=env, check=True)


class LungInfectionApp(monaibundle.MyApp, MONAILabelApp):  # MONAI Label looks for that base
    """Models from the folder beside this file, without any attempt to reach the net."""

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        super().__init__(app_dir, studies, {"zoo_source": "local", "sam2": "false", **conf})
        # Scoring every new scan by itself would take the cores from the annotator who waits for a
        # mask.
        self._auto_update_scoring = settings.MONAI_LABEL_AUTO_UPDATE_SCORING and torch.cuda.is_available()

    def init_datastore(self) -> Datastore:
        """Open the folder of scans, or a DICOMweb server."""
        if "://" in self.studies:
            app.DICOMWebDatastore = DicomStudies  # looked up there when it is opened
            return super().init_datastore()
        return Studies(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Return the model that learns, then the shipped full one where the app has it."""
        full = {path.name: str(path) for path in Path(self.model_dir).glob(f"*_{FULL}")}
        return {name: InfectionInfer(path, self.conf) for name, path in {**self.models, **full}.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Its training."""
        return {name: InfectionTrain(path, self.conf) for name, path in self.models.items()}

    def init_strategies(self) -> dict[str, Strategy]:
        """Random, first, and the most uncertain first."""
        return {**super().init_strategies(), EPISTEMIC: Epistemic()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """How uncertain the model is about the scans without label."""
        path = next(iter(self.models.values()))
        return {EPISTEMIC: EpistemicScoring(InfectionScoring(path, self.conf))}

    def on_init_complete(self) -> None:
        """Put the checks before the web server that starts this app, before it answers anything."""
        from monailabel.app import app as web  # only a server has one

        protect(web, filter(None, self.conf.get("allowed_hosts", "").split(",")))
        super().on_init_complete()

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, str]:
        """Tell an annotator whose label marks nothing."""
        super().on_save_label(image_id, label_id)
        warning = self.datastore().get_label_info(label_id, "final").get("warning")
        return {"warning": warning} if warning else {}

    @answering
    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> Any:
        """Segment a scan of the studies, or one that came with the request."""
        with discarding_upload(str(request.get("image", ""))):
            return self._segment(checked("infer", request), datastore)

    @answering
    def batch_infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> Any:
        """Segment many scans of the studies."""
        wanted = checked("batch_infer", request)
        wanted["multi_gpu"] = wanted.get("multi_gpu", True) and torch.cuda.is_available()
        return self._batch_infer(wanted, datastore or self.datastore(), self._segment)

    def _segment(self, request: Mapping[str, Any], datastore: Datastore | None) -> Any:
        values = {name: value for name, value in request.items() if name in KINDS["infer"]}
        image = str(values.get("image", ""))
        path = image if is_upload(image) or self._in_session(image) else self._find(image, datastore)
        if is_picture(path) or (path.endswith(NIFTI) and len(stored_shape(path)) < 3):
            text = "one flat slice; expected: a volume (`run inference` segments single slices)"
            raise HTTPException(400, f"{Path(path).name}: {text}")
        return super().infer(values, datastore)

    def _find(self, image: str, datastore: Datastore | None) -> str:
        return str((datastore or self.datastore()).get_image_uri(image))

    def _in_session(self, path: str) -> bool:
        """Return whether `PUT /session` sent a file, as 3D Slicer does with its own volumes."""
        sessions = self.sessions()
        return sessions is not None and Path(sessions.store_path).resolve() in Path(path).resolve().parents

    def infer_wsi(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> NoReturn:
        """Refuse whole slide images."""
        raise HTTPException(400, "a whole slide image; expected: a CT volume, by /infer/MODEL")

    @answering
    def train(self, request: Mapping[str, Any]) -> Any:
        """Train on the scans with a final label."""
        return super().train(checked("train", request))

    @answering
    def next_sample(self, request: Mapping[str, Any]) -> Any:
        """Choose the scan to annotate next."""
        return super().next_sample(checked("activelearning", request))

    @answering
    def scoring(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> Any:
        """Measure the uncertainty."""
        return super().scoring(checked("scoring", request), datastore)
