"""Turn failures into answers of one line; the traceback goes to the server's log."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import requests
from fastapi import HTTPException
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelException

from ...errors import UserError, causes

logger = logging.getLogger(__name__)


def answer(error: Exception) -> HTTPException:
    """Turn an exception into an answer."""
    for one in causes(error):
        if isinstance(one, HTTPException):
            return one
        if isinstance(one, MONAILabelException):
            return HTTPException(404 if isinstance(one, ImageNotFoundException) else 400, one.msg)
        if isinstance(one, UserError):
            return HTTPException(400, str(one))
        if isinstance(one, requests.RequestException):
            return HTTPException(502, f"the DICOMweb server cannot be asked: {one}")
    return HTTPException(500, f"{type(error).__name__}: {error}; the server's log says more")


def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function end in an `answer`, whatever goes wrong in it."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except HTTPException:  # an answer already
            raise
        except Exception as error:
            logger.exception("request failed")
            raise answer(error) from error

    return wrapped
