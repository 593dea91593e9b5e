"""MONAI Label's own bundle app, with readable answers and the scan's geometry.

`make monailabel` copies this file to `app/main.py` beside `monaibundle.py`, which is MONAI Label's.
It runs in MONAI Label's environment only. The app holds one bundle with code, whose `scripts` come
before any others that the server's working directory may offer.
"""
# ruff: noqa: E402  # the bundle's folder has to be on the path first

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
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

from scripts.inference.shipped import FULL
from scripts.io.images import is_picture
from scripts.io.masks import write_mask
from scripts.monai_label.request_values import KINDS, TAG_OF_ANNOTATORS
from scripts.monai_label.serving.answers import answer, answering
from scripts.monai_label.serving.dicom_studies import DicomStudies
from scripts.monai_label.serving.endpoints import checked, protect
from scripts.monai_label.serving.model_masks import UNCHANGED, ModelMasks
from scripts.monai_label.serving.sessions import LastingSessions
from scripts.monai_label.serving.studies import NIFTI, Studies, stored_shape
from scripts.monai_label.serving.training import InfectionTrain
from scripts.monai_label.serving.uploads import discarding_upload, is_upload
from scripts.transforms.postprocessing import Probabilities

logger = logging.getLogger(__name__)

EPISTEMIC = "epistemic"
DROPOUT = 0.2

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # torchrun, dcmqi

# MONAI Label would drop and import the bundle's `scripts` anew for every request, and two at a time
# stumble over each other (KeyError while importing). There is one `scripts` here, which does not
# change while the server runs.
os.environ["MONAI_LABEL_RELOAD_APP_LIB"] = "false"

STRICT = {"load_strict": True, "extend_load_image": False}
"""Every key of the weights must fit; images are loaded by the bundle alone, whose labels may be
absent."""


class OneAtATime(BundleInferTask):
    """One scan at a time: two threads, as of a batch, cannot resolve one configuration."""

    def __init__(self, path: str, conf: Mapping[str, str], **settings: Any) -> None:
        super().__init__(path, conf, **STRICT, **settings)
        self._alone = Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the scan before it."""
        with self._alone:
            return super().__call__(*args, **kwargs)


class InfectionInfer(OneAtATime):
    """Inference: a NIfTI answer has the scan's own header."""

    _configured = 0

    def config(self) -> dict[str, Any]:
        """Return a client's settings, by default those of the weights in use.

        MONAI Label asks for them before every inference, and reads the configuration only once.
        """
        changed = Path(self.get_path()).stat().st_mtime_ns
        if changed != self._configured:
            config = self._load_bundle_config(self.bundle_path, self.bundle_config_path)
            self._config.update(config.get_parsed_content("displayable_configs", instantiate=True))
            self._configured = changed
        return super().config()

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


class InfectionScoring(OneAtATime):
    """Monte Carlo dropout on the network's grid, with batch normalisation as in inference."""

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        super().__init__(path, conf, train_mode=True, skip_writer=True, dropout=DROPOUT)

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


class LungInfectionApp(monaibundle.MyApp, MONAILabelApp):  # MONAI Label looks for that base
    """Models from the folder beside this file, without any attempt to reach the net."""

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        super().__init__(app_dir, studies, {"zoo_source": "local", "sam2": "false", **conf})
        self._masks = ModelMasks(Path(app_dir).resolve().parent)
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

    def _load_sessions(self, load: bool = False) -> LastingSessions | None:
        if not load:
            return None
        return LastingSessions(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY)

    def on_init_complete(self) -> None:
        """Put the checks before the web server that starts this app, before it answers anything."""
        from monailabel.app import app as web  # only a server has one

        protect(web, filter(None, self.conf.get("allowed_hosts", "").split(",")))
        super().on_init_complete()

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, str]:
        """Tell an annotator whose label marks nothing, or is the model's own mask."""
        super().on_save_label(image_id, label_id)
        store = self.datastore()
        warnings = [store.get_label_info(label_id, TAG_OF_ANNOTATORS).get("warning")]
        label = store.get_label_uri(label_id, TAG_OF_ANNOTATORS)
        if label and self._masks.holds(label, store.get_image_uri(image_id)):
            warnings.append(f"{UNCHANGED}: a training leaves it out unless it is asked for `unchanged_labels`")
        said = "; ".join(filter(None, warnings))
        return {"warning": said} if said else {}

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
        return self._batch_infer(wanted, datastore or self.datastore(), self._segment_of_many)

    def _segment_of_many(self, request: Mapping[str, Any], datastore: Datastore) -> Any:
        """Segment a scan, or say why not: the next ones are segmented all the same."""
        try:
            return self._segment(request, datastore)
        except Exception as error:
            said = answer(error).detail
            logger.warning(f"{request['image']}: not segmented: {said}", exc_info=True)
            return {"error": said}

    def _segment(self, request: Mapping[str, Any], datastore: Datastore | None) -> Any:
        values = {name: value for name, value in request.items() if name in KINDS["infer"]}
        image = str(values.get("image", ""))
        path = image if is_upload(image) or self._in_session(image) else self._find(image, datastore)
        if is_picture(path) or (path.endswith(NIFTI) and len(stored_shape(path)) < 3):
            text = "one flat slice; expected: a volume (`run inference` segments single slices)"
            raise HTTPException(400, f"{Path(path).name}: {text}")
        result = super().infer(values, datastore)
        if result.get("file"):
            self._masks.add(result["file"], path)
        return result

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
