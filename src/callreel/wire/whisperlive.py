"""WhisperLive's WebSocket protocol (as its 0.10 client and Vexa's fork speak it), the server's side.

One connection carries one audio stream: TEXT options, BINARY audio, END_OF_AUDIO. `ServerProtocol` turns frames into
events, the functions below it write the answers, and `TranscriptView` keeps the list of segments that a client sees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np

from callreel.audio.pcm import Pcm, quantize
from callreel.errors import InvalidInput
from callreel.text import Segment, Word

MAX_FRAME_BYTES = 1024 * 1024  # 16 s of float32; the public client sends 16 KiB a frame
MOST_SEGMENTS = 1000  # in one message: the whole list is sent again for every decode
SHORTEST_SEGMENT_S = 0.001  # a client that is sent a segment of no length twice keeps it twice

END_OF_AUDIO = b"END_OF_AUDIO"
BACKEND = "faster_whisper"  # the public client keeps its transcript empty for any other name

AudioFormat: TypeAlias = Literal["float32", "int16", "uint8"]
SAMPLE_BYTES: dict[AudioFormat, int] = {"float32": 4, "int16": 2, "uint8": 1}

CONTROL_TYPES = frozenset({"speaker_activity", "speaker_activity_update", "audio_chunk_metadata", "session_control"})

FIRST_HINT = 'The first frame is TEXT, a JSON object with at least "uid", "task" and "model".'
OPTIONS_HINT = (
    "Options have the types that WhisperLive's client gives them, null means the default; task is transcribe or "
    f"translate, audio_format float32, int16 or uint8, send_last_n_segments 0 to {MOST_SEGMENTS}."
)
TEXT_HINT = 'After the options a TEXT frame is END_OF_AUDIO or {"type": ..., "payload": {...}}; audio goes in BINARY.'
SIZE_HINT = f"Send audio in frames of at most {MAX_FRAME_BYTES} bytes; a quarter of a second each is best."


# -- client to server


@dataclass(frozen=True, slots=True)
class VadParameters:
    """`threshold` is the speech probability, 0..1, from which a frame counts as speech."""

    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class KnownSpeaker:
    """A voice that diarization shall call by `name`."""

    name: str
    audio_base64: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """What a client asks for, always the first event; each default is what an absent or null option means.

    `model` None leaves the choice to the server, `language` None asks it to detect; a client that gave no `uid` gets
    one from the server.
    """

    uid: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    model: str | None = None
    language: str | None = None
    use_vad: bool = True
    vad_parameters: VadParameters = VadParameters()
    send_last_n_segments: Annotated[int, msgspec.Meta(ge=0, le=MOST_SEGMENTS)] = 10
    no_speech_thresh: float = 0.45
    clip_audio: bool = False
    same_output_threshold: int = 10
    initial_prompt: str | None = None
    hotwords: str | None = None  # separated by commas
    word_timestamps: bool = False
    enable_translation: bool = False
    target_language: str = "fr"
    enable_diarization: bool = False
    max_speakers: int = 10
    known_speakers: tuple[KnownSpeaker, ...] = ()
    audio_format: AudioFormat = "float32"
    # Callreel's own: which call and track this is, go on with one that broke off, send `ack` messages.
    call_id: str | None = None
    track: str | None = None
    resume: bool = False
    ack: bool = False
    # Vexa's.
    platform: str | None = None
    meeting_url: str | None = None
    meeting_id: str | int | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """The next samples of the stream, at least one: int16, mono, 16 kHz; may be a read-only view of the frame."""

    pcm: Pcm


@dataclass(frozen=True, slots=True)
class EndOfAudio:
    """The client has sent everything; always the last event."""


@dataclass(frozen=True, slots=True)
class Control:
    """A message of Vexa's about the meeting; `type` is one of CONTROL_TYPES."""

    type: str
    payload: dict[str, Any]


Event: TypeAlias = Options | Audio | EndOfAudio | Control


class ServerProtocol:
    """Feed it a connection's frames in order. After InvalidInput send `error(uid, ...)` and close."""

    def __init__(self) -> None:
        self.uid: str | None = None  # known before the other options are checked, so that an error about them has it
        self._format: AudioFormat | None = None  # None until the options are there
        self._torn = b""  # the beginning of a sample whose end is in the next frame
        self._ended = False

    def receive(self, frame: str | bytes) -> list[Event]:
        """The events of one whole message: str for TEXT, bytes for BINARY. Raises InvalidInput, with a hint."""
        if self._ended:
            return []
        body = frame.encode(errors="replace") if isinstance(frame, str) else frame
        if len(body) > MAX_FRAME_BYTES:
            raise InvalidInput(f"A frame of {len(body)} bytes is too long.", hint=SIZE_HINT)
        if self._format is None:
            return [self._begin(body, is_text=isinstance(frame, str))]
        if body == END_OF_AUDIO:
            self._ended = True
            return [EndOfAudio()]
        return self._control(body) if isinstance(frame, str) else self._audio(self._format, body)

    def _begin(self, body: bytes, *, is_text: bool) -> Options:
        said = _json_object(body) if is_text else None
        if said is None:
            raise InvalidInput("The first frame is not a JSON object of options.", hint=FIRST_HINT)
        uid = said.get("uid")
        self.uid = uid if isinstance(uid, str) else None
        if missing := [name for name in ("task", "model") if name not in said]:
            raise InvalidInput(f"The options lack {' and '.join(missing)}.", hint=FIRST_HINT, missing=missing)
        given = {name: value for name, value in said.items() if value is not None}
        try:
            options = msgspec.convert(given, Options, strict=False)  # takes "10" for 10 and 1 for true
        except msgspec.ValidationError as error:
            raise InvalidInput(f"An option cannot be understood: {error}.", hint=OPTIONS_HINT) from error
        if options.model is not None and options.model.endswith("en"):
            options = replace(options, language="en")
        self._format = options.audio_format
        return options

    def _control(self, body: bytes) -> list[Event]:
        said = _json_object(body) or {}
        kind, payload = said.get("type"), said.get("payload") or {}
        if not isinstance(kind, str) or not isinstance(payload, dict):
            raise InvalidInput("A TEXT frame is neither a control nor END_OF_AUDIO.", hint=TEXT_HINT)
        return [Control(kind, payload)] if kind in CONTROL_TYPES else []

    def _audio(self, audio_format: AudioFormat, body: bytes) -> list[Event]:
        raw = self._torn + body if self._torn else body
        whole = len(raw) - len(raw) % SAMPLE_BYTES[audio_format]
        self._torn = raw[whole:]
        return [Audio(_decode(audio_format, raw[:whole]))] if whole else []


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _decode(audio_format: AudioFormat, raw: bytes) -> Pcm:
    """Whole little-endian samples as int16."""
    if audio_format == "int16":
        return np.frombuffer(raw, np.dtype("<i2")).astype(np.int16, copy=False)
    if audio_format == "uint8":
        return (np.frombuffer(raw, np.uint8).astype(np.int16) - 128) * 256  # (x - 128) / 128, exactly
    with np.errstate(over="ignore"):  # what overflows to infinity is clipped like all that is too loud
        return quantize(np.frombuffer(raw, np.dtype("<f4")))


# -- server to client


def ready(uid: str, extra: dict[str, Any] | None = None) -> str:
    """The model is ready. `extra` adds fields for our own client; it may not rename the ones of the protocol."""
    return _message(uid, message="SERVER_READY", backend=BACKEND, **(extra or {}))


def language(uid: str, language: str, probability: float) -> str:
    """The language that was detected, as its ISO 639-1 code; sent once."""
    return _message(uid, language=language, language_prob=probability)


def segments(uid: str, segments: Sequence[Segment], word_timestamps: bool) -> str:
    """What `TranscriptView` gives, if it is not empty: the public client fails on an empty list."""
    return _message(uid, segments=[_segment(segment, word_timestamps) for segment in segments])


def wait(uid: str, minutes: float) -> str:
    """The server is full; close after it."""
    return _message(uid, status="WAIT", message=minutes)


def error(uid: str, message: str) -> str:
    return _message(uid, status="ERROR", message=message)


def warning(uid: str, message: str) -> str:
    return _message(uid, status="WARNING", message=message)


def disconnect(uid: str) -> str:
    """The connection's time is used up; close after it."""
    return _message(uid, message="DISCONNECT")


def ack(uid: str, samples: int) -> str:
    """Callreel's own: all samples before this one are kept, whatever happens to the connection."""
    return _message(uid, ack=samples)


def _message(uid: str, **fields: Any) -> str:
    return msgspec.json.encode({"uid": uid, **fields}).decode()


def _segment(segment: Segment, word_timestamps: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "start": f"{segment.start:.3f}",
        "end": f"{segment.end:.3f}",
        "text": segment.text,
        "completed": segment.completed,
    }
    if segment.speaker is not None:
        shown["speaker"] = segment.speaker
    if word_timestamps:
        shown["words"] = [_word(word) for word in segment.words]
    return shown


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.word,
        "start": f"{word.start:.3f}",
        "end": f"{word.end:.3f}",
        "probability": round(word.probability, 4),
    }


class TranscriptView:
    """The segments that one client is sent: the last `last_n` completed ones, then at most one partial.

    The public client drops a completed segment that starts before the last one it kept ends. So the times given here
    are whole milliseconds, never overlap, and every segment has a length.
    """

    def __init__(self, last_n: int) -> None:
        self._completed: deque[Segment] = deque(maxlen=last_n)
        self._partial: Segment | None = None
        self._kept_end = 0.0  # of the newest completed segment, seconds; only ever rises

    def update(self, segments: Iterable[Segment]) -> list[Segment]:
        """Take new segments, in order, each completed once; a partial lasts until the next one. Returns the list."""
        for segment in segments:
            placed = self._placed(segment)
            if placed.completed:
                self._completed.append(placed)
                self._kept_end = placed.end
            self._partial = None if placed.completed else placed
        return [*self._completed, *([self._partial] if self._partial else [])]

    def _placed(self, segment: Segment) -> Segment:
        start = max(self._kept_end, round(segment.start, 3))
        end = max(round(segment.end, 3), round(start + SHORTEST_SEGMENT_S, 3))
        words = tuple(replace(w, start=max(start, w.start), end=max(start, w.end)) for w in segment.words)
        return replace(segment, start=start, end=end, words=words)
