"""The engine `openai` against a real HTTP server on this machine that answers as it is told."""

from __future__ import annotations

import io
import json
import threading
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callreel.engines import catalogue
from callreel.engines.base import DecodeOptions, EngineSpec, Window
from callreel.engines.openai import OpenAIEngine, _Transcription, _Word, _words, _written, load
from callreel.errors import CallreelError, EngineRefused, EngineUnavailable, InvalidInput, ModelMissing
from callreel.text import join_words

WINDOW = Window(np.arange(32_000, dtype=np.int32).astype(np.int16))
VERBOSE = {
    "task": "transcribe",
    "language": "english",
    "duration": 2.0,
    "text": "Hello, can you hear me?",
    "words": [
        {"word": "Hello", "start": 0.1, "end": 0.5},
        {"word": "can", "start": 0.7, "end": 0.9},
        {"word": "you", "start": 0.9, "end": 1.0},
        {"word": "hear", "start": 1.0, "end": 1.3},
        {"word": "me", "start": 1.3, "end": 2.6},
    ],
    "segments": [
        {
            "id": 0,
            "text": " Hello,",
            "start": 0.0,
            "end": 0.6,
            "tokens": [1],
            "avg_logprob": -0.1,
            "no_speech_prob": 0.1,
        },
        {
            "text": " can you hear me?",
            "start": 0.6,
            "end": 2.0,
            "tokens": [1, 2, 3],
            "avg_logprob": -0.5,
            "no_speech_prob": 0.5,
            "compression_ratio": 1.0,
        },
    ],
}


@dataclass
class Server:
    """`knows` are the response formats it takes, "words" among them for granularities; `status` refuses all."""

    knows: tuple[str, ...] = ("json", "verbose_json", "words")
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    said: dict[str, Any] = field(default_factory=lambda: VERBOSE)
    asked: list[dict[str, Any]] = field(default_factory=list)
    meeting: threading.Barrier | None = None

    def answer(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        self.asked.append(asked)
        if self.meeting:
            self.meeting.wait(10)
        form = asked["response_format"][0]
        if self.status != 200:
            return self.status, b'{"error": {"message": "no way"}}'
        if form not in self.knows or ("timestamp_granularities[]" in asked and "words" not in self.knows):
            return 400, b'{"error": {"message": "unknown parameter"}}'
        if self.body is not None:
            return 200, self.body
        shown = dict(self.said) if form == "verbose_json" else {"text": self.said["text"]}
        if "timestamp_granularities[]" not in asked:
            shown.pop("words", None)
        return 200, json.dumps(shown).encode()


@pytest.fixture(scope="module")
def http() -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            parsed = BytesParser(policy=HTTP).parsebytes(
                b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
            )
            asked: dict[str, Any] = {"path": self.path, "authorization": self.headers.get("Authorization")}
            for part in parsed.iter_parts():
                name = part.get_param("name", header="content-disposition")
                content = part.get_payload(decode=True)
                asked.setdefault(name, []).append(content if name == "file" else content.decode())
            current: Server = self.server.current  # type: ignore[attr-defined]
            status, said = current.answer(asked)
            self.send_response(status)
            for header, value in current.headers.items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def server(http: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    http.current = Server()  # type: ignore[attr-defined]
    return http.current  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def engine(server: Server, http: ThreadingHTTPServer) -> Iterator[OpenAIEngine]:
    engine = load(spec(f"http://127.0.0.1:{http.server_port}/v1/"))
    yield engine
    engine.close()


def spec(url: str | None, key: str | None = "sk-ours") -> EngineSpec:
    return EngineSpec("openai", "whisper-1", "/nowhere", url=url, key=key)


def timed(engine: OpenAIEngine, **options: Any) -> list[tuple[str, float, float]]:
    (decoded,) = engine.decode([WINDOW], DecodeOptions(**options))
    return [(w.word, w.start, w.end) for w in decoded.words]


# -- what goes out, what comes back


def test_words_have_their_times_and_their_marks(engine: OpenAIEngine) -> None:
    (decoded,) = engine.decode([WINDOW], DecodeOptions())
    assert [w.word for w in decoded.words] == [" Hello,", " can", " you", " hear", " me?"]
    assert [w.start for w in decoded.words] == [0.1, 0.7, 0.9, 1.0, 1.3]
    assert decoded.words[-1].end == 2.0  # not beyond the window
    assert join_words(decoded.words) == VERBOSE["text"]
    assert decoded.language == "en"
    stats = decoded.stats
    assert (stats.tokens, stats.avg_logprob, stats.no_speech_prob, stats.compression_ratio) == (4, -0.4, 0.4, 1.0)


def test_what_is_sent(engine: OpenAIEngine, server: Server) -> None:
    window = Window(WINDOW.pcm, "what was said before")
    engine.decode([window], DecodeOptions(language="sw", temperature=0.4, hotwords="Callreel"))
    (asked,) = server.asked
    assert (asked["path"], asked["authorization"]) == ("/v1/audio/transcriptions", "Bearer sk-ours")
    assert asked["model"] == ["whisper-1"]
    assert asked["language"] == ["sw"]
    assert asked["prompt"] == ["Callreel what was said before"]
    assert asked["temperature"] == ["0.4"]
    assert asked["response_format"] == ["verbose_json"]
    assert asked["timestamp_granularities[]"] == ["word", "segment"]
    with wave.open(io.BytesIO(asked["file"][0])) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (16_000, 1, 2)
        np.testing.assert_array_equal(np.frombuffer(wav.readframes(wav.getnframes()), np.int16), WINDOW.pcm)


def test_a_translation_is_asked_for_as_one(engine: OpenAIEngine, server: Server) -> None:
    engine.decode([WINDOW], DecodeOptions(language="sw", task="translate"))
    assert server.asked[0]["path"] == "/v1/audio/translations"
    assert "language" not in server.asked[0]


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_the_url_may_end_as_it_likes(path: str, server: Server, http: ThreadingHTTPServer) -> None:
    with closing(load(spec(f"http://127.0.0.1:{http.server_port}{path}", key=None))) as engine:
        engine.decode([WINDOW], DecodeOptions())
    assert (server.asked[0]["path"], server.asked[0]["authorization"]) == ("/v1/audio/transcriptions", None)


def test_nothing_is_not_sent(engine: OpenAIEngine, server: Server) -> None:
    assert engine.decode([], DecodeOptions()) == []
    assert engine.decode([Window(WINDOW.pcm[:0])], DecodeOptions("en"))[0].words == ()
    assert server.asked == []


# -- servers that know less


def test_one_without_word_times(engine: OpenAIEngine, server: Server) -> None:
    server.knows = ("json", "verbose_json")
    words = timed(engine)
    assert [w for w, _, _ in words] == [" Hello,", " can", " you", " hear", " me?"]
    assert words[0][1:] == (0.0, 0.6)
    assert words[1][1] == 0.6
    assert words[-1][2] == 2.0
    assert len(server.asked) == 2
    timed(engine)
    assert len(server.asked) == 3  # it is not asked again what it does not know


def test_one_with_the_text_alone(engine: OpenAIEngine, server: Server) -> None:
    server.knows = ("json",)
    words = timed(engine)
    assert [w for w, _, _ in words] == [" Hello,", " can", " you", " hear", " me?"]
    assert (words[0][1], words[-1][2]) == (0.0, 2.0)
    (decoded,) = engine.decode([WINDOW], DecodeOptions())
    assert decoded.language is None


def test_one_that_says_nulls_and_nothing(engine: OpenAIEngine, server: Server) -> None:
    server.said = {"text": "", "language": None, "words": None, "segments": None}
    assert timed(engine) == []
    server.said = {"text": "hi", "language": "Klingon", "words": [], "segments": []}
    assert timed(engine) == [(" hi", 0.0, 2.0)]


def test_calls_run_side_by_side(engine: OpenAIEngine, server: Server) -> None:
    n = engine.capabilities.parallel
    assert n >= 2
    server.meeting = threading.Barrier(n)  # nobody gets an answer before all have asked
    with ThreadPoolExecutor(n) as pool:
        answers = list(pool.map(lambda _: timed(engine), range(n)))
    assert len(answers) == n


# -- errors


@pytest.mark.parametrize(
    ("status", "kind", "transient", "about"),
    [
        (401, EngineRefused, False, "key"),
        (403, EngineRefused, False, "key"),
        (404, ModelMissing, False, "whisper-1"),
        (413, InvalidInput, False, ""),
        (400, InvalidInput, False, ""),
        (429, EngineUnavailable, True, ""),
        (500, EngineUnavailable, True, ""),
        (503, EngineUnavailable, True, ""),
    ],
)
def test_refusals(
    status: int, kind: type[CallreelError], transient: bool, about: str, engine: OpenAIEngine, server: Server
) -> None:
    server.status = status
    with pytest.raises(kind, match=f"says {status}: .*no way") as caught:
        timed(engine)
    assert type(caught.value) is kind
    assert caught.value.transient is transient
    assert about in caught.value.hint
    server.status = 200
    assert timed(engine)[0][0] == " Hello,"  # words and all: a refusal says nothing of what it knows


def test_how_long_to_wait_is_passed_on(engine: OpenAIEngine, server: Server) -> None:
    server.status, server.headers = 429, {"Retry-After": "17"}
    with pytest.raises(EngineUnavailable) as caught:
        timed(engine)
    assert caught.value.detail["retry_after_s"] == 17


def test_nobody_there() -> None:
    with (
        closing(load(spec("http://127.0.0.1:1"))) as engine,
        pytest.raises(EngineUnavailable, match="does not answer") as caught,
    ):
        engine.decode([WINDOW], DecodeOptions())
    assert caught.value.transient


@pytest.mark.parametrize("body", [b"<html>", b'"hello"', b'{"text": 5}', b'{"words": [{"word": 1}]}', b"\xff"])
def test_a_server_of_another_kind(body: bytes, engine: OpenAIEngine, server: Server) -> None:
    server.body = body
    with pytest.raises(EngineRefused, match="does not speak"):
        timed(engine)


@pytest.mark.parametrize("url", [None, "", "gpu-box:8000", "ftp://box", "http://", "http://[", "not a url"])
def test_an_url_that_cannot_be(url: str | None) -> None:
    with pytest.raises(InvalidInput, match="URL"):
        catalogue.load(spec(url))


# -- words found in the text again


@pytest.mark.parametrize(
    ("text", "words", "pieces"),
    [
        ("It's (really) 5 o'clock.", ["It's", "really", "5", "o'clock"], [" It's", " (really)", " 5", " o'clock."]),
        ("你好吗", ["你", "好", "吗"], [" 你", "好", "吗"]),
        ("¿Qué tal?", ["Qué", "tal"], [" ¿Qué", " tal?"]),
        ("one two", ["three"], [" three"]),
        ("", ["one"], [" one"]),
        (" a a a ", [" a", " a", " a"], [" a", " a", " a "]),
    ],
)
def test_pieces_of_text(text: str, words: list[str], pieces: list[str]) -> None:
    assert _written(text, words) == pieces


@settings(deadline=None)
@given(
    st.text("ab c.,(é", max_size=30),
    st.lists(st.builds(_Word, st.text("abcé", max_size=3), st.floats(-1, 40), st.floats(-1, 40)), max_size=8),
    st.floats(0, 30),
)
def test_whatever_it_says_times_are_in_order_and_inside(text: str, words: list[_Word], duration_s: float) -> None:
    found = _words(_Transcription(text, words=words), duration_s)
    times = [t for w in found for t in (w.start, w.end)]
    assert all(0 <= t <= duration_s + 0.0005 for t in times)
    assert all(before <= after for before, after in pairwise(times))
    assert all(w.word.strip() for w in found)


@given(st.lists(st.text("abcé'", min_size=1, max_size=4), min_size=1, max_size=8))
def test_a_text_is_cut_at_its_words_and_nothing_is_lost(words: list[str]) -> None:
    text = ", ".join(words) + "."
    assert "".join(_written(text, words)).strip() == text
