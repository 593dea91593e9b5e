"""MONAI Label's endpoints with this app's checks before them.

The endpoints look their functions up when a request comes, so the ones that need a check are
replaced there.
"""

import inspect
import json
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from fastapi import FastAPI, HTTPException
from fastapi.middleware import Middleware
from fastapi.middleware.cors import CORSMiddleware
from monailabel.config import settings
from monailabel.endpoints import datastore, infer, model, session
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.others.generic import device_list, remove_file
from starlette.background import BackgroundTask

from ...errors import UserError
from ..request_values import check_request, refuse_evaluated, without_settings
from ..web_guard import WebGuard, normal_origin
from .answers import answering
from .dicom_seg import BY_MODEL, write_seg


def checked(kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request says, checked (`check_request`) with the devices of this machine."""
    return check_request(kind, request, device_list())


def protect(web: FastAPI, hosts: Iterable[str]) -> None:
    """Put the checks before a server's endpoints.

    Args:
        web: MONAI Label's web application; it may already have started.
        hosts: names by which the server may be reached, beside its own.
    """
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)  # PUT /session unpacks archives
    infer.run_inference = _inference(infer.run_inference)
    infer.nifti_to_dicom_seg = _dicom_seg
    model.update_model = model.delete_model = _refuse_weights
    for name in ("add_image", "save_label", "update_image_info", "update_label_info"):
        setattr(datastore, name, _keeping(getattr(datastore, name)))
    datastore.download_dataset = _removing(datastore.download_dataset)
    session.create_session = _keeping(session.create_session)
    AsyncTask.run = staticmethod(_task(AsyncTask.run))
    origins = [normal_origin(str(origin)) for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    pages = Middleware(
        CORSMiddleware, allow_origins=origins, allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
    )
    guard = Middleware(WebGuard, origins=origins, hosts=list(hosts))
    others = [one for one in web.user_middleware if one.cls is not CORSMiddleware]  # MONAI Label's lets every page in
    web.user_middleware = [guard, pages, *others]
    web.middleware_stack = web.build_middleware_stack()


def _inference(run: Callable[..., Any]) -> Callable[..., Any]:
    """Check the parameters before anything of the request is stored."""

    @answering
    def checked_inference(*args: Any, **kwargs: Any) -> Any:
        names = ("background_tasks", "model", "image", "session_id", "params", "file", "label", "output")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        params = _parameters(given.get("params"), "params")
        checked("infer", params)
        _require_session(given.get("session_id"))
        if given.get("output") != infer.ResultType.dicom_seg:
            return run(**{**given, "params": json.dumps(params)})
        params.setdefault("label_info", [{"model_name": given.get("model", "")}])
        answer = run(**{**given, "params": json.dumps(params)})
        given["background_tasks"].add_task(remove_file, answer.path)  # MONAI Label leaves it behind
        return answer

    return checked_inference


def _require_session(session_id: str | None) -> None:
    """Refuse a session that is gone, for which MONAI Label would look for a scan without a name."""
    sessions = app_instance().sessions()
    if session_id and (sessions is None or sessions.get_session(session_id) is None):
        raise HTTPException(404, f"session {session_id}: unknown or expired; expected: an id that PUT /session gave")


def _parameters(text: Any, name: str) -> dict[str, Any]:
    try:
        params = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: no JSON ({error}); expected: an object such as {{}}") from None
    if not isinstance(params, dict):
        raise UserError(f"{name}: {type(params).__name__}; expected: an object such as {{}}")
    return params


def _keeping(keep: Callable[..., Any]) -> Callable[..., Any]:
    """Check names and notes of an upload before anything of it is stored."""
    signature = inspect.signature(keep)

    @answering
    def checked_keep(*args: Any, **kwargs: Any) -> Any:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            noted = _parameters(value, name) if name in ("params", "info") else value
            refuse_evaluated(noted, name)
        try:
            return keep(*args, **kwargs)
        except (shutil.ReadError, tarfile.TarError, zlib.error, EOFError, ValueError) as error:
            raise UserError(f"the upload cannot be kept ({error}); expected: a volume, or an archive of it") from error

    return checked_keep


def _removing(download: Callable[..., Any]) -> Callable[..., Any]:
    """Remove the archive of all labelled scans once it is sent; MONAI Label leaves it behind."""

    @answering
    def removing_download(limit_cases: int | None = None) -> Any:
        if not app_instance().datastore().get_labeled_images():
            raise HTTPException(404, "no scan has a final label; expected: labels to download")
        answer = download(limit_cases)
        answer.background = BackgroundTask(remove_file, answer.path)
        return answer

    return removing_download


def _dicom_seg(series: str, mask: str, label_info: Any, **_: Any) -> str:
    """Write a mask of the model, which is no annotator's label whatever the request says."""
    return write_seg(series, mask, label_info, BY_MODEL)


def _task(run: Callable[..., Any]) -> Callable[..., Any]:
    """Check a task before a process is started for it."""

    @answering
    def checked_run(
        method: str, request: Any = None, params: Any = None, force_sync: bool = False, enqueue: bool = False
    ) -> Any:
        merged = {**(request or {}), **(params or {})}
        refuse_evaluated(merged, "the request")
        own = checked(method, without_settings(merged))
        return run(method, request=own, params=None, force_sync=force_sync, enqueue=enqueue)

    return checked_run


def _refuse_weights(*_: Any, **__: Any) -> NoReturn:
    text = "weights are not changed by a request; expected: `python -m scripts monai_label use` on the server"
    raise HTTPException(403, text)
