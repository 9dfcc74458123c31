"""Any server that speaks OpenAI's audio API, as an engine: each window is sent to it as a WAV file.

https://platform.openai.com/docs/api-reference/audio. What a server does not know of it is done without: word times
are then estimated from segments, segments from the window.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from callreel.audio.pcm import SAMPLE_RATE, Pcm, seconds
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, EngineSpec, Window
from callreel.engines.languages import code_of
from callreel.engines.spread import split, spread
from callreel.errors import EngineRefused, EngineUnavailable, InvalidInput, ModelMissing
from callreel.text import DecodeStats, Word

TIMEOUTS = httpx.Timeout(180.0, connect=5.0)  # of a server whose own queue is long
PARALLEL = 4  # calls at once, though this machine may have fewer cores: the work is done elsewhere
MAX_TOLD = 300  # characters of another server's error that are shown
FORMATS: tuple[dict[str, Any], ...] = (  # how much is asked for, from the most to the least
    {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]},
    {"response_format": "verbose_json"},
    {"response_format": "json"},
)


class _Word(msgspec.Struct):
    word: str
    start: float
    end: float


class _Segment(msgspec.Struct):
    text: str = ""
    start: float = 0.0
    end: float = 0.0
    tokens: list[int] = []
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None


class _Transcription(msgspec.Struct):
    """What comes back; a server leaves out or makes null what it does not know."""

    text: str = ""
    language: str | None = None
    words: list[_Word] | None = None
    segments: list[_Segment] | None = None


def load(spec: EngineSpec) -> OpenAIEngine:
    """Raises InvalidInput where no URL is set, or none that could be one. The server is first asked in a decode."""
    if not spec.url:
        raise InvalidInput("The engine 'openai' needs the URL of a server", hint="Set CALLREEL_OPENAI_URL")
    try:
        urlsplit(spec.url)  # stricter with brackets than the next
        url = httpx.URL(spec.url.rstrip("/"))
    except (ValueError, httpx.InvalidURL) as error:
        raise InvalidInput(f"{spec.url!r} is no URL: {error}", hint="Such as http://gpu-box:8000/v1") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidInput(f"{spec.url!r} is no URL of a server", hint="Such as http://gpu-box:8000/v1")
    return OpenAIEngine(url, spec.model, key=spec.key, parallel=max(spec.threads, PARALLEL))


class OpenAIEngine:
    """A client of such a server. Calls run side by side; what it was found not to know is not asked again."""

    name = "openai"

    def __init__(self, url: httpx.URL, model: str, *, key: str | None = None, parallel: int = PARALLEL) -> None:
        self.model = model
        self.capabilities = Capabilities(batch=1, parallel=parallel, word_times=True, translate=True)
        base = str(url)
        self._client = httpx.Client(
            base_url=base if url.path.endswith("/v1") else f"{base}/v1",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUTS,
            limits=httpx.Limits(max_connections=parallel),
        )
        self._known = 0  # the best of FORMATS that was not refused

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        """As `Engine.decode`. Raises EngineUnavailable (transient) where the server is away or busy, EngineRefused
        for a wrong key, ModelMissing for a model it has not, InvalidInput for what it does not take.
        """
        return [self._decode(window, options) for window in windows]

    def close(self) -> None:
        """Let go of the connections that are kept."""
        self._client.close()

    def _decode(self, window: Window, options: DecodeOptions) -> Decoded:
        if len(window.pcm) == 0:
            return Decoded((), options.language)
        translate = options.task == "translate"
        fields: dict[str, Any] = {"model": self.model, "temperature": str(options.temperature)}
        prompt = " ".join(part.strip() for part in (options.hotwords, window.prompt) if part.strip())
        if prompt:
            fields["prompt"] = prompt
        if options.language and not translate:
            fields["language"] = options.language
        path = "/audio/translations" if translate else "/audio/transcriptions"
        said = self._ask(path, fields, _wav(window.pcm), self._known)
        language = options.language or _language(said.language)
        words = tuple(_words(said, seconds(len(window.pcm))))
        return Decoded(words, language, 1.0, _stats(said, words, options.temperature))

    def _ask(self, path: str, fields: dict[str, Any], wav: bytes, level: int) -> _Transcription:
        """The answer in the best format it knows."""
        files = {"file": ("window.wav", wav, "audio/wav")}
        try:
            answer = self._client.post(path, data=fields | FORMATS[level], files=files)
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                f"{self._client.base_url} does not answer: {error or type(error).__name__}",
                hint="Check openai.url, and that the server behind it runs",
            ) from error
        if answer.status_code in (400, 415, 422) and level + 1 < len(FORMATS):
            said = self._ask(path, fields, wav, level + 1)
            self._known = max(self._known, level + 1)  # it was the format that it did not like, for this one it took
            return said
        self._check(answer)
        try:
            return msgspec.json.decode(answer.content, type=_Transcription)
        except msgspec.DecodeError as error:
            raise EngineRefused(
                f"{answer.url} does not speak OpenAI's audio API: {error}", hint="Check openai.url"
            ) from error

    def _check(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status < 400:
            return
        told = f"{self._client.base_url} says {status}: {answer.text[:MAX_TOLD]}"
        if status in (401, 403):
            raise EngineRefused(told, hint="Check the key: CALLREEL_OPENAI_KEY")
        if status == 404:
            raise ModelMissing(told, hint=f"Check openai.url, and that it has a model {self.model!r}")
        if status in (408, 425, 429) or status >= 500:
            error = EngineUnavailable(told)
            if answer.headers.get("Retry-After", "").isdigit():
                error.detail["retry_after_s"] = int(answer.headers["Retry-After"])
            raise error
        raise InvalidInput(told)


def _wav(pcm: Pcm) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        wav.writeframes(pcm.tobytes())
    return file.getvalue()


def _language(said: str | None) -> str | None:
    """OpenAI says names ("english"), others say codes; None for what is neither."""
    try:
        return code_of(said) if said else None
    except InvalidInput:
        return None


def _words(said: _Transcription, duration_s: float) -> list[Word]:
    """Words with times in order inside the window, from the best that the answer has."""
    if said.words:
        pieces = _written(said.text, [word.word for word in said.words])
        found = [
            Word(piece, word.start, word.end) for piece, word in zip(pieces, said.words, strict=True) if piece.strip()
        ]
    elif said.segments:
        found = [w for s in said.segments for w in spread(split(s.text), s.start, max(s.start, s.end))]
    else:
        found = spread(split(said.text), 0.0, duration_s)
    timed, at = [], 0.0
    for word in found:
        start = min(max(word.start, at), duration_s)
        at = min(max(word.end, start), duration_s)
        timed.append(Word(word.word, round(start, 3), round(at, 3)))
    return timed


def _written(text: str, words: Sequence[str]) -> list[str]:
    """`text` cut into one piece a word: timed words come without the spaces and marks that stand in the text."""
    starts, at = [], 0
    for word in words:
        found = text.find(word.strip(), at)
        if found < 0:
            return [word if word.startswith(" ") else f" {word}" for word in words]
        starts.append(found)
        at = found + len(word.strip())
    bounds = [0, *(_before(text, start) for start in starts[1:]), len(text)]
    pieces = [text[begin:end] for begin, end in pairwise(bounds)]
    return [f" {pieces[0].lstrip()}", *pieces[1:]]


def _before(text: str, start: int) -> int:
    """Where the piece of a word at `start` begins: with the space before it, and a mark that opens."""
    while (
        start > 0 and not text[start - 1].isspace() and not text[start - 1].isalnum() and text[start - 1] in "\"'“¿([{-"
    ):
        start -= 1
    while start > 0 and text[start - 1].isspace():
        start -= 1
    return start


def _stats(said: _Transcription, words: Sequence[Word], temperature: float) -> DecodeStats:
    """Over all segments, those with more tokens counting more."""
    segments = said.segments or []
    n_tokens = sum(len(segment.tokens) for segment in segments)

    def mean(name: str) -> float | None:
        known = [(getattr(s, name), max(1, len(s.tokens))) for s in segments if getattr(s, name) is not None]
        return round(sum(v * n for v, n in known) / sum(n for _, n in known), 4) if known else None

    return DecodeStats(
        tokens=n_tokens or len(words),
        avg_logprob=mean("avg_logprob"),
        no_speech_prob=mean("no_speech_prob"),
        compression_ratio=mean("compression_ratio"),
        temperature=temperature,
    )
