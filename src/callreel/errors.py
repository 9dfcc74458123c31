"""What can go wrong, by name. Each class's docstring is its default message, `hint` what to do next.

CallreelError
    InvalidInput            400
        UnreadableMedia     422
            TooLong         422
        TooLarge            413
        ForbiddenAddress    403
        SourceRefused       422
    Unauthorized            401
    Forbidden               403
    NotFound                404
    Conflict                409
    QueueFull               429
    EngineUnavailable       503
        ModelMissing        503
        EngineRefused       503
        EngineCrashed       503
    StorageUnavailable      503
        DataFolderInUse     503
        OutOfSpace          507
    SourceUnavailable       502
    ServerUnreachable       503
    ServerStops             503
    ExtraMissing            501
    Cancelled               409
"""

from __future__ import annotations

import errno
import inspect
from collections.abc import Iterator, Mapping
from typing import Any


class CallreelError(Exception):
    """Something went wrong inside Callreel."""

    code = "internal"
    status = 500
    hint = "The log tells more, under the request's id (X-Request-ID)"
    transient = False  # may the same work succeed when it is tried again?

    def __init__(self, message: str | None = None, *, hint: str | None = None, **detail: Any) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or type(self).__name__))
        if hint is not None:
            self.hint = hint
        self.detail = detail

    def as_dict(self) -> dict[str, Any]:
        """The body under "error" of every HTTP answer, and what a failed job keeps."""
        return {"code": self.code, "message": str(self), "hint": self.hint, "detail": self.detail}

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> CallreelError:
        """`as_dict` read back: the same class, or the root under the code of one that this version does not know."""
        code = str(body.get("code") or cls.code)
        kind = next((kind for kind in _kinds(cls) if kind.code == code), cls)
        detail = body.get("detail")
        error = kind(
            str(body.get("message") or "") or None,
            hint=str(body.get("hint") or "") or None,
            **(detail if isinstance(detail, dict) else {}),
        )
        error.code = code
        return error


class InvalidInput(CallreelError):
    """The request cannot be understood."""

    code = "invalid_input"
    status = 400
    hint = "/docs describes the API, --help each command"


class UnreadableMedia(InvalidInput):
    """No audio could be read from this file."""

    code = "unreadable_media"
    status = 422
    hint = "Check that it plays, and that it has an audio track"


class TooLong(UnreadableMedia):
    """This file holds more sound than is taken."""

    code = "too_long"
    hint = "Cut it into parts"


class TooLarge(InvalidInput):
    """This upload is larger than the server takes."""

    code = "too_large"
    status = 413
    hint = "Raise CALLREEL_MAX_FILE_SIZE"


class ForbiddenAddress(InvalidInput):
    """This URL leads to an address that is private or reserved, which may not be reached from here."""

    code = "address_not_allowed"
    status = 403
    hint = "sources.allow_networks (CALLREEL_SOURCES_ALLOW_NETWORKS) names the private networks that may be reached"


class SourceRefused(InvalidInput):
    """The server behind this URL does not hand the file out."""

    code = "source_refused"
    status = 422
    hint = "Open the URL in a browser, and see what it says"


class Unauthorized(CallreelError):
    """A valid API key is needed."""

    code = "unauthorized"
    status = 401
    hint = "Send it as `Authorization: Bearer KEY`; an admin makes keys with `callreel keys create NAME`"


class Forbidden(CallreelError):
    """Only an admin's key may do this."""

    code = "forbidden"
    status = 403
    hint = "Ask an admin, or for a key of role admin"


class NotFound(CallreelError):
    """There is nothing under this id that you may see."""

    code = "not_found"
    status = 404
    hint = "Lists such as GET /v1/calls and GET /v1/jobs have the ids of what is yours"


class Conflict(CallreelError):
    """The state of this thing does not allow that now."""

    code = "conflict"
    status = 409
    hint = "Read it again, then decide"


class QueueFull(CallreelError):
    """The queue is full."""

    code = "queue_full"
    status = 429
    hint = "Try again after the time in Retry-After"
    transient = True


class EngineUnavailable(CallreelError):
    """The speech engine does not answer."""

    code = "engine_unavailable"
    status = 503
    hint = "It is started again by itself: try again in a moment"
    transient = True


class ModelMissing(EngineUnavailable):
    """This model is not on this machine and could not be fetched."""

    code = "model_missing"
    hint = "Give a local folder, or go online once: `callreel models pull NAME`"
    transient = False


class EngineRefused(EngineUnavailable):
    """The speech engine's server refuses us."""

    code = "engine_refused"
    hint = "Check the key and the URL that are set for it"
    transient = False


class EngineCrashed(EngineUnavailable):
    """The speech engine died several times on the same audio."""

    code = "engine_crashed"
    hint = "The audio is kept; the log says where it is"
    transient = False


class StorageUnavailable(CallreelError):
    """The database or the data folder cannot be written."""

    code = "storage_unavailable"
    status = 503
    hint = "Try again; if it stays so, see that the data folder can be written and its disk has room"
    transient = True


class DataFolderInUse(StorageUnavailable):
    """Another Callreel server holds this data folder."""

    code = "data_folder_in_use"
    hint = "Stop it, or give this one its own with --data-dir"
    transient = False


class OutOfSpace(StorageUnavailable):
    """The disk of the data folder is full."""

    code = "out_of_space"
    status = 507
    hint = "Free some space, then send it again"


def disk_fault(error: OSError, message: str | None = None, *, hint: str | None = None) -> StorageUnavailable:
    """What a disk did not take, by our name: OutOfSpace where it or a quota is full."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return (OutOfSpace if full else StorageUnavailable)(message, hint=hint, cause=str(error))


class SourceUnavailable(CallreelError):
    """The server behind this URL cannot be reached, or broke off."""

    code = "source_unavailable"
    status = 502
    hint = "Try again later"
    transient = True


class ServerUnreachable(CallreelError):
    """No Callreel server answers there."""

    code = "server_unreachable"
    status = 503
    hint = "Start one with `callreel serve`, or say where it is with --url"
    transient = True


class ServerStops(CallreelError):
    """The server is being stopped."""

    code = "server_stops"
    status = 503
    hint = "Send the request again in a moment"
    transient = True


class ExtraMissing(CallreelError):
    """This needs a package that is not installed here."""

    code = "extra_missing"
    status = 501
    hint = "Install it beside Callreel with pip"


class Cancelled(CallreelError):
    """This work was cancelled."""

    code = "cancelled"
    status = 409
    hint = "Send it again if it is still wanted"


def _kinds(root: type[CallreelError]) -> Iterator[type[CallreelError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
