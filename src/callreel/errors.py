"""What can go wrong, by name. Each class's docstring is its default message, and says what to do next.

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
    """Something went wrong inside Callreel; the server's log has the traceback under the request's id."""

    code = "internal"
    status = 500
    hint = ""
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
            hint=str(body.get("hint") or ""),
            **(detail if isinstance(detail, dict) else {}),
        )
        error.code = code
        return error


class InvalidInput(CallreelError):
    """The request cannot be understood; see `detail` for the field and what it may hold."""

    code = "invalid_input"
    status = 400


class UnreadableMedia(InvalidInput):
    """No audio could be read from this file; check that it plays, and that it has an audio track."""

    code = "unreadable_media"
    status = 422


class TooLong(UnreadableMedia):
    """This file holds more sound than is taken; cut it into parts."""

    code = "too_long"


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
    """The server behind this URL does not hand the file out; open the URL in a browser, and see what it says."""

    code = "source_refused"
    status = 422


class Unauthorized(CallreelError):
    """A valid API key is needed; send it as `Authorization: Bearer KEY`."""

    code = "unauthorized"
    status = 401


class Forbidden(CallreelError):
    """Only an admin's key may do this."""

    code = "forbidden"
    status = 403


class NotFound(CallreelError):
    """There is nothing under this id that you may see."""

    code = "not_found"
    status = 404


class Conflict(CallreelError):
    """The state of this thing does not allow that now; read it again, then decide."""

    code = "conflict"
    status = 409


class QueueFull(CallreelError):
    """The queue is full; try again after the time in Retry-After."""

    code = "queue_full"
    status = 429
    transient = True


class EngineUnavailable(CallreelError):
    """The speech engine does not answer; it is started again by itself, so try again in a moment."""

    code = "engine_unavailable"
    status = 503
    transient = True


class ModelMissing(EngineUnavailable):
    """This model is not on this machine and could not be fetched; give a local folder, or go online once."""

    code = "model_missing"
    transient = False


class EngineRefused(EngineUnavailable):
    """The speech engine's server refuses us; check the key and the URL that are set for it."""

    code = "engine_refused"
    transient = False


class EngineCrashed(EngineUnavailable):
    """The speech engine died several times on the same audio; the audio is kept, the log says where."""

    code = "engine_crashed"
    transient = False


class StorageUnavailable(CallreelError):
    """The database or the data folder cannot be written; free space or mend it, nothing accepted is lost meanwhile."""

    code = "storage_unavailable"
    status = 503
    transient = True


class DataFolderInUse(StorageUnavailable):
    """Another Callreel server holds this data folder; stop it, or give this one its own with --data-dir."""

    code = "data_folder_in_use"
    transient = False


class OutOfSpace(StorageUnavailable):
    """The disk of the data folder is full; free some space, then send it again."""

    code = "out_of_space"
    status = 507


def disk_fault(error: OSError, message: str | None = None, *, hint: str | None = None) -> StorageUnavailable:
    """What a disk did not take, by our name: OutOfSpace where it or a quota is full."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return (OutOfSpace if full else StorageUnavailable)(message, hint=hint, cause=str(error))


class SourceUnavailable(CallreelError):
    """The server behind this URL cannot be reached, or broke off; try again later."""

    code = "source_unavailable"
    status = 502
    transient = True


class ServerUnreachable(CallreelError):
    """No Callreel server answers there; start one with `callreel serve`, or say where it is with --url."""

    code = "server_unreachable"
    status = 503
    transient = True


class ServerStops(CallreelError):
    """The server is being stopped; send the request again in a moment."""

    code = "server_stops"
    status = 503
    transient = True


class ExtraMissing(CallreelError):
    """This needs a package that is not installed here; the hint names the command that installs it."""

    code = "extra_missing"
    status = 501


class Cancelled(CallreelError):
    """This work was cancelled."""

    code = "cancelled"
    status = 409


def _kinds(root: type[CallreelError]) -> Iterator[type[CallreelError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
