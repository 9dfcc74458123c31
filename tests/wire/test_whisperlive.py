from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.audio.pcm import Pcm, quantize
from callreel.errors import InvalidInput
from callreel.text import Segment, Word
from callreel.wire import whisperlive
from callreel.wire.whisperlive import (
    MAX_FRAME_BYTES,
    Audio,
    Control,
    EndOfAudio,
    Event,
    KnownSpeaker,
    Options,
    ServerProtocol,
    TranscriptView,
    VadParameters,
)

FIRST = {"uid": "u1", "task": "transcribe", "model": "small"}


def options_of(**said: Any) -> Options:
    (options,) = ServerProtocol().receive(json.dumps(FIRST | said))
    assert isinstance(options, Options)
    return options


def started(**said: Any) -> ServerProtocol:
    protocol = ServerProtocol()
    protocol.receive(json.dumps(FIRST | said))
    return protocol


def heard(events: list[Event]) -> Pcm:
    return np.concatenate([np.zeros(0, np.int16), *(event.pcm for event in events if isinstance(event, Audio))])


# -- options


def test_an_absent_option_means_what_the_protocol_says() -> None:
    assert options_of() == Options(
        uid="u1",
        task="transcribe",
        model="small",
        language=None,
        use_vad=True,
        vad_parameters=VadParameters(threshold=0.5),
        send_last_n_segments=10,
        no_speech_thresh=0.45,
        clip_audio=False,
        same_output_threshold=10,
        initial_prompt=None,
        hotwords=None,
        word_timestamps=False,
        enable_translation=False,
        target_language="fr",
        enable_diarization=False,
        max_speakers=10,
        known_speakers=(),
        audio_format="float32",
        call_id=None,
        track=None,
        resume=False,
        ack=False,
        platform=None,
        meeting_url=None,
        meeting_id=None,
        token=None,
    )


def test_what_the_public_client_sends() -> None:
    options = options_of(
        language="de",
        task="translate",
        use_vad=False,
        send_last_n_segments=3,
        no_speech_thresh=0.6,
        clip_audio=True,
        same_output_threshold=7,
        initial_prompt="Hello",
        hotwords="Callreel,Vexa",
        vad_parameters={"threshold": 0.3, "min_speech_duration_ms": 100},
        word_timestamps=True,
        enable_translation=True,
        target_language="es",
        enable_diarization=True,
        max_speakers=4,
        known_speakers=[{"name": "Ada", "audio_base64": "AAAA"}],
        audio_format="int16",
        something_new={"a": [1]},
    )
    assert options == replace(
        options,
        language="de",
        task="translate",
        use_vad=False,
        send_last_n_segments=3,
        no_speech_thresh=0.6,
        clip_audio=True,
        same_output_threshold=7,
        initial_prompt="Hello",
        hotwords="Callreel,Vexa",
        vad_parameters=VadParameters(0.3),
        word_timestamps=True,
        enable_translation=True,
        target_language="es",
        enable_diarization=True,
        max_speakers=4,
        known_speakers=(KnownSpeaker("Ada", "AAAA"),),
        audio_format="int16",
    )


def test_what_vexas_bot_sends() -> None:
    options = options_of(
        model=None, language=None, platform="google_meet", token="secret", meeting_id=17, meeting_url="https://m/x"
    )
    assert (options.model, options.language, options.meeting_id) == (None, None, 17)
    assert (options.platform, options.meeting_url, options.token) == ("google_meet", "https://m/x", "secret")
    assert "secret" not in repr(options)
    assert options_of(meeting_id="abc-defg-hij").meeting_id == "abc-defg-hij"


def test_what_our_own_client_sends() -> None:
    options = options_of(call_id="c", track="left", resume=True, ack=True)
    assert (options.call_id, options.track, options.resume, options.ack) == ("c", "left", True, True)


@pytest.mark.parametrize(
    ("model", "language", "spoken"),
    [
        ("small.en", None, "en"),
        ("small.en", "de", "en"),
        ("distil-large-v3.en", "fr", "en"),
        ("small", "de", "de"),
        ("small", None, None),
    ],
)
def test_an_english_model_forces_english(model: str, language: str | None, spoken: str | None) -> None:
    assert options_of(model=model, language=language).language == spoken


@pytest.mark.parametrize(
    ("name", "said", "meant"),
    [
        ("max_speakers", "4", 4),
        ("send_last_n_segments", 5.0, 5),
        ("no_speech_thresh", "0.3", 0.3),
        ("no_speech_thresh", 1, 1.0),
        ("max_speakers", None, 10),
        ("use_vad", None, True),
        ("use_vad", "false", False),
        ("vad_parameters", None, VadParameters()),
        ("known_speakers", None, ()),
        ("audio_format", None, "float32"),
        ("task", None, "transcribe"),
        ("uid", None, None),
    ],
)
def test_harmless_slips_are_understood(name: str, said: Any, meant: Any) -> None:
    assert getattr(options_of(**{name: said}), name) == meant


def test_a_client_without_a_uid_is_let_in() -> None:
    protocol = ServerProtocol()
    (options,) = protocol.receive('{"task": "transcribe", "model": "small"}')
    assert isinstance(options, Options)
    assert options.uid is protocol.uid is None


@pytest.mark.parametrize(
    "first",
    [
        b"\x00\x00\x00\x00",
        json.dumps(FIRST).encode(),  # as BINARY
        b"END_OF_AUDIO",
        "END_OF_AUDIO",
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "[" * 100_000,
        "\ud800",
        '{"uid": "u1", "task": "transcribe"}',
        '{"uid": "u1", "model": "small"}',
    ],
)
def test_a_first_frame_without_options_is_refused(first: str | bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        ServerProtocol().receive(first)
    assert refused.value.hint == whisperlive.FIRST_HINT


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("uid", 7),
        ("task", "sing"),
        ("model", ["small"]),
        ("language", 3),
        ("use_vad", "perhaps"),
        ("vad_parameters", "none"),
        ("vad_parameters", {"threshold": "high"}),
        ("send_last_n_segments", -1),
        ("send_last_n_segments", 10**30),
        ("max_speakers", 2.5),
        ("no_speech_thresh", "low"),
        ("known_speakers", [{"name": "Ada"}]),
        ("audio_format", "mp3"),
        ("audio_format", 16),
        ("resume", []),
    ],
)
def test_an_option_of_the_wrong_kind_is_named(name: str, said: Any) -> None:
    protocol = ServerProtocol()
    with pytest.raises(InvalidInput, match=name) as refused:
        protocol.receive(json.dumps(FIRST | {name: said}))
    assert refused.value.hint == whisperlive.OPTIONS_HINT
    assert protocol.uid == (None if name == "uid" else "u1")  # so that the answer can carry it


# -- audio


def sounds(max_size: int) -> st.SearchStrategy[bytes]:
    """Any bytes but the end mark, which the protocol cannot tell from audio."""
    return st.binary(max_size=max_size).filter(lambda raw: whisperlive.END_OF_AUDIO not in raw)


@pytest.mark.parametrize(
    ("audio_format", "raw", "samples"),
    [
        ("float32", np.array([0, 0.5, -0.5, -1], "<f4").tobytes(), [0, 16384, -16384, -32768]),
        ("float32", np.array([1, 7, -7, 3e38], "<f4").tobytes(), [32767, 32767, -32768, 32767]),
        ("float32", np.array([np.nan, np.inf, -np.inf], "<f4").tobytes(), [0, 32767, -32768]),
        ("float32", b"\x00\x00\x81\x7f", [0]),  # a NaN that signals
        ("int16", b"\x00\x00\x01\x00\xff\xff\xff\x7f\x00\x80", [0, 1, -1, 32767, -32768]),
        ("uint8", b"\x80\x00\xff\x81\x7f", [0, -32768, 32512, 256, -256]),
    ],
)
def test_samples_of_each_format(audio_format: str, raw: bytes, samples: list[int]) -> None:
    pcm = heard(started(audio_format=audio_format).receive(raw))
    assert pcm.dtype == np.int16
    assert pcm.tolist() == samples


def test_bytes_become_what_the_protocol_says_of_them() -> None:
    every = np.arange(256, dtype=np.uint8)
    pcm = heard(started(audio_format="uint8").receive(every.tobytes()))
    assert np.array_equal(pcm, quantize((every.astype(np.float32) - 128) / 128))


@given(raw=sounds(4000).map(lambda raw: raw[: len(raw) // 4 * 4]))
def test_quantisation_is_off_by_half_a_step_at_most(raw: bytes) -> None:
    signal = np.nan_to_num(np.frombuffer(raw, "<f4"), nan=0.0, posinf=1.0, neginf=-1.0)
    exact = np.clip(signal.astype(np.float64) * 32768, -32768, 32767)
    assert np.all(np.abs(heard(started().receive(raw)) - exact) <= 0.5)


@given(
    raw=sounds(300),
    cuts=st.lists(st.integers(0, 300), max_size=20),
    audio_format=st.sampled_from(["float32", "int16", "uint8"]),
)
def test_any_splitting_into_frames_gives_the_same_audio(raw: bytes, cuts: list[int], audio_format: str) -> None:
    protocol = started(audio_format=audio_format)
    borders = [0, *sorted(cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(borders)]
    events = [event for piece in pieces for event in protocol.receive(piece)]
    assert all(isinstance(event, Audio) and len(event.pcm) for event in events)
    assert np.array_equal(heard(events), heard(started(audio_format=audio_format).receive(raw)))


@pytest.mark.parametrize("end", [b"END_OF_AUDIO", "END_OF_AUDIO"])
def test_nothing_follows_the_end(end: str | bytes) -> None:
    protocol = started(audio_format="int16")
    assert protocol.receive(b"\x01") == []
    assert protocol.receive(end) == [EndOfAudio()]
    assert protocol.receive(b"\x00\x00") == protocol.receive("nonsense") == protocol.receive(end) == []


def test_a_frame_has_a_greatest_length() -> None:
    assert len(heard(started().receive(bytes(MAX_FRAME_BYTES)))) == MAX_FRAME_BYTES // 4
    for protocol, frame in [
        (started(), bytes(MAX_FRAME_BYTES + 1)),
        (started(), "ä" * (MAX_FRAME_BYTES // 2 + 1)),
        (ServerProtocol(), json.dumps(FIRST | {"initial_prompt": "x" * MAX_FRAME_BYTES})),
    ]:
        with pytest.raises(InvalidInput) as refused:
            protocol.receive(frame)
        assert refused.value.hint == whisperlive.SIZE_HINT


# -- controls


@pytest.mark.parametrize(
    "kind", ["speaker_activity", "speaker_activity_update", "audio_chunk_metadata", "session_control"]
)
def test_vexas_controls(kind: str) -> None:
    payload = {"event": "LEAVING_MEETING", "at": [1, 2]}
    assert started().receive(json.dumps({"type": kind, "payload": payload})) == [Control(kind, payload)]
    assert started().receive(json.dumps({"type": kind})) == [Control(kind, {})]


def test_an_unknown_control_is_ignored() -> None:
    assert started().receive('{"type": "weather", "payload": {}}') == []


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "{}", '{"type": 1}', '{"type": "session_control", "payload": 3}', "end_of_audio"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        started().receive(text)
    assert refused.value.hint == whisperlive.TEXT_HINT


# -- whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
OPTION = st.sampled_from(list(Options.__dataclass_fields__))
FRAME = (
    st.binary(max_size=64)
    | st.text(st.characters(), max_size=64)
    | JSON.map(json.dumps)
    | st.fixed_dictionaries({"type": JSON | st.sampled_from(["session_control"]), "payload": JSON}).map(json.dumps)
    | st.sampled_from(["END_OF_AUDIO", b"END_OF_AUDIO"])
)
BEGINNING = st.none() | st.dictionaries(OPTION, JSON, max_size=4).map(lambda said: json.dumps(FIRST | said))


@given(beginning=BEGINNING, frames=st.lists(FRAME, max_size=12))
def test_any_frames_give_events_or_a_reason(beginning: str | None, frames: list[str | bytes]) -> None:
    protocol = ServerProtocol()
    events: list[Event] = []
    for frame in [*([beginning] if beginning else []), *frames]:
        try:
            events += protocol.receive(frame)
        except InvalidInput as refused:
            assert str(refused) and refused.hint
    assert [type(event) for event in events].count(Options) == bool(events)
    assert not events or isinstance(events[0], Options)
    assert EndOfAudio() not in events[:-1]
    assert heard(events).dtype == np.int16


# -- messages

HELLO = Segment(
    track="a",
    seq=0,
    start=0.0,
    end=2.5,
    text="Hello there.",
    words=(Word(" Hello", 0.12, 0.48, 0.95123), Word(" there.", 0.48, 2.5, 1.0)),
)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (whisperlive.ready("u1"), {"uid": "u1", "message": "SERVER_READY", "backend": "faster_whisper"}),
        (
            whisperlive.ready("u1", {"call_id": "c", "samples": 7}),
            {"uid": "u1", "message": "SERVER_READY", "backend": "faster_whisper", "call_id": "c", "samples": 7},
        ),
        (whisperlive.language("u1", "en", 0.98), {"uid": "u1", "language": "en", "language_prob": 0.98}),
        (whisperlive.wait("u1", 2.5), {"uid": "u1", "status": "WAIT", "message": 2.5}),
        (whisperlive.error("u1", 'no "x"'), {"uid": "u1", "status": "ERROR", "message": 'no "x"'}),
        (whisperlive.warning("u1", "ä"), {"uid": "u1", "status": "WARNING", "message": "ä"}),
        (whisperlive.disconnect("u1"), {"uid": "u1", "message": "DISCONNECT"}),
        (whisperlive.ack("u1", 16000), {"uid": "u1", "ack": 16000}),
        (
            whisperlive.segments("u1", [HELLO, replace(HELLO, speaker="Ada", completed=False)], False),
            {
                "uid": "u1",
                "segments": [
                    {"start": "0.000", "end": "2.500", "text": "Hello there.", "completed": True},
                    {
                        "start": "0.000",
                        "end": "2.500",
                        "text": "Hello there.",
                        "completed": False,
                        "speaker": "Ada",
                    },
                ],
            },
        ),
        (
            whisperlive.segments("u1", [HELLO], True),
            {
                "uid": "u1",
                "segments": [
                    {
                        "start": "0.000",
                        "end": "2.500",
                        "text": "Hello there.",
                        "completed": True,
                        "words": [
                            {"word": " Hello", "start": "0.120", "end": "0.480", "probability": 0.9512},
                            {"word": " there.", "start": "0.480", "end": "2.500", "probability": 1.0},
                        ],
                    }
                ],
            },
        ),
    ],
)
def test_messages(message: str, said: dict[str, Any]) -> None:
    assert json.loads(message) == said


# -- what a client sees


def segment(start: float, end: float, text: str, *, completed: bool = True) -> Segment:
    return Segment("a", 0, start, end, text, words=(Word(text, start, end),), completed=completed)


def test_a_partial_lasts_until_the_next_segment() -> None:
    view = TranscriptView(2)
    assert view.update([]) == []
    assert [s.text for s in view.update([segment(0, 1, "on", completed=False)])] == ["on"]
    assert [s.text for s in view.update([segment(0, 1, "one"), segment(1, 2, "tw", completed=False)])] == ["one", "tw"]
    assert [s.text for s in view.update([segment(1, 2, "two")])] == ["one", "two"]
    assert [s.text for s in view.update([segment(2, 3, "three"), segment(3, 4, "f", completed=False)])] == [
        "two",
        "three",
        "f",
    ]
    assert [s.text for s in view.update([])] == ["two", "three", "f"]


def test_a_view_of_no_completed_segments_shows_the_partial() -> None:
    view = TranscriptView(0)
    assert view.update([segment(0, 1, "one")]) == []
    assert [s.text for s in view.update([segment(1, 2, "tw", completed=False)])] == ["tw"]


def test_what_overlaps_is_clipped_with_its_words() -> None:
    view = TranscriptView(10)
    view.update([segment(0, 2, "one")])
    _, clipped = view.update([segment(1.5, 3, "two")])
    assert (clipped.start, clipped.end) == (2, 3)
    assert (clipped.words[0].start, clipped.words[0].end) == (2, 3)


class PublicClient:
    """How the public client (0.10.0) keeps completed segments."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def receive(self, message: str) -> None:
        for said in json.loads(message)["segments"]:
            if said["completed"] and (not self.kept or float(said["start"]) >= float(self.kept[-1]["end"])):
                self.kept.append(said)


TIME = st.floats(0, 50, allow_nan=False)


@given(
    spans=st.lists(st.tuples(TIME, TIME, st.booleans()), max_size=30),
    last_n=st.integers(1, 12),
)
def test_a_real_client_keeps_each_completed_segment_once(spans: list[tuple[float, float, bool]], last_n: int) -> None:
    view, client, completed, kept_end = TranscriptView(last_n), PublicClient(), [], 0.0
    for n, (start, length, done) in enumerate(spans):
        new = segment(start, start + length * 0.1, f"text {n}", completed=done)
        completed += [new.text] if done else []
        shown = view.update([new])
        assert [s.text for s in shown if s.completed] == completed[-last_n:]
        assert [s.text for s in shown if not s.completed] == ([] if done else [new.text])
        for one in shown:
            assert one.start < one.end
            assert all(one.start <= word.start <= word.end for word in one.words)
        assert all(one.end <= after.start for one, after in pairwise(shown))
        client.receive(whisperlive.segments("u1", shown, word_timestamps=True))
        assert shown[-1].end >= kept_end
        kept_end = max([kept_end, *(s.end for s in shown if s.completed)])
    assert [said["text"] for said in client.kept] == completed
