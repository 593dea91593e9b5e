"""The MONAI Label app: MONAI Label's own bundle app, made to answer in words and to keep the scan's geometry.

`make monailabel` copies this file to `app/main.py` beside `monaibundle.py`, which is MONAI Label's. It runs in MONAI
Label's environment only. The bundle's `scripts` are on the path only while MONAI Label works with the bundle, so
nothing of them is imported at the top, and their `UserError` is known by its name.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import monaibundle
import nibabel as nib
import torch
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.scoring.epistemic_v2 import EpistemicScoring
from monailabel.tasks.train.bundle import BundleTrainTask

logger = logging.getLogger(__name__)

EPISTEMIC = "epistemic"
DROPOUT = 0.2
NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # torchrun, dcmqi

# MONAI Label would drop and import the bundle's `scripts` anew for every request, and two at a time stumble over each
# other (KeyError while importing). There is one bundle here, which does not change while the server runs.
os.environ["MONAI_LABEL_RELOAD_APP_LIB"] = "false"


def answer(error: Exception) -> HTTPException:
    """Turns an exception into an answer that a person understands; the traceback goes to the server's log."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for one in chain:
        if isinstance(one, HTTPException):
            return one
        if isinstance(one, MONAILabelException):
            return HTTPException(404 if isinstance(one, ImageNotFoundException) else 400, one.msg)
        if type(one).__name__ == "UserError":
            return HTTPException(400, str(one))
    return HTTPException(500, f"{type(error).__name__}: {error}; the server's log says more")


def is_upload(path: str) -> bool:
    """Whether a file came with the request: any other file of this machine is no image to ask for."""
    file = Path(path)
    named = file.name.startswith(tempfile.gettempprefix())  # as MONAI Label names uploads: nobody's own file
    return named and file.parent == Path(tempfile.gettempdir()) and file.is_file()


@contextmanager
def discarding_upload(path: str) -> Iterator[None]:
    """Removes an uploaded file when the request fails: MONAI Label removes it only after a success."""
    try:
        yield
    except Exception:
        if is_upload(path):
            Path(path).unlink()
        raise


def answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a method of the app end in an `answer`, whatever goes wrong in it."""

    @wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            logger.exception("request failed")
            raise answer(error) from error

    return wrapped


STRICT = {"load_strict": True, "extend_load_image": False}
"""Every key of the weights must fit; images are loaded by the bundle alone, whose labels may be absent."""


class InfectionInfer(BundleInferTask):
    """Inference: a NIfTI answer has the scan's own header."""

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        super().__init__(path, conf, **STRICT)

    def writer(self, data: dict[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[Any, Any]:
        """Writes the mask; MONAI Label's writer, for other formats, knows axes at right angles only."""
        scan = str(data["image_path"])
        wanted = str(extension or data.get("result_extension") or "".join(Path(scan).suffixes))
        if not scan.endswith(NIFTI) or not wanted.endswith(NIFTI):
            return super().writer(data, extension, dtype)
        from scripts.scan.writer import write_mask  # the bundle's, imported by this request

        suffix = ".nii.gz" if wanted.endswith(".gz") else ".nii"
        with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as file:
            mask = data[self.output_label_key].cpu().numpy().reshape(data["image"].meta["spatial_shape"])
            write_mask(mask.astype("uint8"), scan, file.name)
        return file.name, {}


class InfectionScoring(BundleInferTask):
    """Monte Carlo dropout: probabilities on the network's grid, batch normalisation as in inference."""

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        super().__init__(path, conf, **STRICT, train_mode=True, skip_writer=True, dropout=DROPOUT)

    def post_transforms(self, data: Any = None) -> list[Callable[..., Any]]:
        """Stops at probabilities: the entropy of a thresholded mask knows only how often a voxel flips."""
        super().post_transforms(data)  # imports the bundle
        from scripts.transforms.postprocessing import Probabilities

        return [Probabilities()]

    def _get_network(self, device: str, data: Any) -> Any:
        """Leaves only dropout in training mode, so that a score does not depend on the batch a slice lies in."""
        network = super()._get_network(device, data)
        for layer in network.modules():
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                layer.eval()
        return network


class InfectionTrain(BundleTrainTask):
    """Training: from the weights in use or, with `pretrained: false`, from random ones; failures are failures."""

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> Any:
        """Trains; 3D Slicer sends an empty run id, with which the runner would resolve every section."""
        self._pretrained = bool(request.get("pretrained", True))
        return super().__call__({**request, "run_id": request.get("run_id") or "run"}, datastore)

    def _partition_datalist(
        self, datalist: list[Any], request: Mapping[str, Any], shuffle: bool = False
    ) -> tuple[list[Any], list[Any] | None]:
        training, validation = super()._partition_datalist(datalist, request, shuffle)
        if not training:
            text = f"{len(datalist)} scans have a final label and none is left to train on"
            raise HTTPException(400, f"{text}; accepted: more labelled scans, or a smaller val_split")
        return training, validation

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        if pretrained:
            super()._load_checkpoint(model_pytorch, pretrained, train_handlers)

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides["pretrained"] = self._pretrained
        return overrides

    def run_multi_gpu(self, request: Mapping[str, Any], cmd: list[str], env: Mapping[str, str]) -> None:
        """Runs torchrun; MONAI Label's own takes any end of it for a success."""
        subprocess.run(cmd, env=env, check=True)


class Studies(LocalDatastore):
    """The folder of scans: says what is unknown, and takes a label only on its scan's grid."""

    def get_image_uri(self, image_id: str) -> str:
        """Returns the scan's file; MONAI Label's own returns an empty name for an unknown scan."""
        return str(super().get_image_uri(image_id)) or _unknown(image_id)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Takes a new scan; its name may not lead out of the folder."""
        with discarding_upload(image_filename):
            _plain_name(image_id)
            return str(super().add_image(image_id, image_filename, image_info))

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keeps a label, replacing an earlier one of the same scan and tag."""
        with discarding_upload(label_filename):
            _plain_name(label_tag)
            scan = self.get_image_uri(image_id)
            if scan.endswith(NIFTI) and label_filename.endswith(NIFTI):
                expected, found = _shape(scan), _shape(label_filename, f"the label of {image_id}")
                if found != expected:
                    text = f"the label of {image_id}: has {found} voxels; accepted: those of its scan, {expected}"
                    raise HTTPException(400, text)
            return str(super().save_label(image_id, label_filename, label_tag, label_info))


def _plain_name(name: str) -> None:
    if Path(name).name != name or name in ("", ".", ".."):
        raise HTTPException(400, f"{name!r} is no plain name; accepted: a name without folders")


def _unknown(image_id: str) -> NoReturn:
    raise HTTPException(404, f"{image_id}: no such image; accepted: an id that /datastore/?output=all lists")


def _shape(path: str, name: str | None = None) -> tuple[int, ...]:
    try:
        return tuple(nib.load(path).shape)
    except Exception as error:
        raise HTTPException(400, f"{name or Path(path).name}: cannot be read ({error}); accepted: NIfTI") from error


class LungInfectionApp(monaibundle.MyApp, MONAILabelApp):  # MONAI Label looks for that base
    """One model, from the folder beside this file, without any attempt to reach the net."""

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        super().__init__(app_dir, studies, {"zoo_source": "local", "sam2": "false", **conf})
        # Scoring every new scan by itself would take the cores from the annotator who waits for a mask.
        self._auto_update_scoring = settings.MONAI_LABEL_AUTO_UPDATE_SCORING and torch.cuda.is_available()

    def init_datastore(self) -> Datastore:
        """Opens the folder of scans, or a DICOMweb server."""
        if "://" in self.studies:
            return super().init_datastore()
        return Studies(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """The model."""
        return {name: InfectionInfer(path, self.conf) for name, path in self.models.items()}

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

    @answering
    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> Any:
        """Segments a scan of the studies, or one that came with the request."""
        image = str(request.get("image", ""))
        with discarding_upload(image):
            path = image if is_upload(image) else (datastore or self.datastore()).get_image_uri(image)
            if path.endswith(PICTURES) or (path.endswith(NIFTI) and len(_shape(path)) < 3):
                text = "one flat slice; accepted: a volume (`run inference` segments single slices)"
                raise HTTPException(400, f"{Path(path).name}: {text}")
            return super().infer(request, datastore)

    @answering
    def train(self, request: Mapping[str, Any]) -> Any:
        """Trains on the scans with a final label."""
        return super().train(request)

    @answering
    def next_sample(self, request: Mapping[str, Any]) -> Any:
        """Chooses the scan to annotate next."""
        return super().next_sample(request)

    @answering
    def scoring(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> Any:
        """Measures the uncertainty."""
        return super().scoring(request, datastore)
