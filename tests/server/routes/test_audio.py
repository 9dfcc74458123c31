"""OpenAI's audio endpoints, driven by OpenAI's own client; its types check every answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionTextSegmentEvent,
    TranscriptionVerbose,
    TranslationVerbose,
)
from openai.types.model import Model

from callreel.measure.harness import ServerProcess, wait_for
from tests.server.helpers import DEADLINE_S, is_gone, long_file, running_child, upload

SHORT = "en_short.wav"


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{server.port}/v1"
    with openai.OpenAI(api_key="unused", base_url=url, max_retries=0, timeout=DEADLINE_S) as client:
        yield client


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_file(tmp_path_factory.mktemp("media"), copies=6)


@pytest.fixture
def spoken(references: dict[str, Any]) -> str:
    return str(references[SHORT]["tracks"]["mono"]["text"])


@pytest.fixture
def create(client: openai.OpenAI, toy_audio: Path) -> Callable[..., Any]:
    def create(file: str | Path = SHORT, **asked: Any) -> Any:
        asked = {"model": "whisper-1", **asked}
        return client.audio.transcriptions.create(file=toy_audio / file, **asked)

    return create


def kept(server: ServerProcess) -> set[str]:
    return {path.name for path in (server.data / "objects").glob("calls/*")}


def checked(type_: type[Any], answer: Any) -> dict[str, Any]:
    """The answer as a dict, held against the SDK's type, which reads any answer at first without a complaint."""
    raw = answer.model_dump(mode="json", exclude_unset=True)
    type_.model_validate(raw, strict=True)
    return dict(raw)


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"])
def test_json_is_the_default(create: Callable[..., Any], spoken: str, model: str) -> None:
    answer = checked(Transcription, create(model=model))
    assert answer == {
        "text": spoken,
        "languages": [{"code": "en"}],
        "usage": {"type": "duration", "seconds": pytest.approx(3.61, abs=0.05)},
    }


def test_logprobs_say_how_sure_each_word_is(create: Callable[..., Any], spoken: str) -> None:
    answer = checked(Transcription, create(include=["logprobs"]))
    assert "".join(one["token"] for one in answer["logprobs"]).strip() == spoken
    assert all(
        one["logprob"] <= 0 and bytes(map(int, one["bytes"])).decode() == one["token"] for one in answer["logprobs"]
    )


def test_text_and_subtitles_are_text(create: Callable[..., Any], spoken: str) -> None:
    assert create(response_format="text") == f"{spoken}\n"
    srt, vtt = create(response_format="srt"), create(response_format="vtt")
    assert srt.startswith("1\n00:00:0") and " --> " in srt and spoken in " ".join(srt.split())
    assert vtt.startswith("WEBVTT\n\n00:00:0") and spoken in " ".join(vtt.split())


@pytest.mark.parametrize(
    ("granularities", "has"),
    [([], {"segments"}), (["word"], {"words"}), (["segment", "word"], {"segments", "words"})],
)
def test_verbose_json(create: Callable[..., Any], spoken: str, granularities: list[str], has: set[str]) -> None:
    asked = {"timestamp_granularities": granularities} if granularities else {}
    answer = checked(TranscriptionVerbose, create(response_format="verbose_json", **asked))
    assert set(answer) == {"task", "language", "duration", "text", "usage"} | has
    assert (answer["task"], answer["language"], answer["text"]) == ("transcribe", "english", spoken)
    for segment in answer.get("segments", ()):
        assert 0 <= segment["start"] < segment["end"] <= answer["duration"] and segment["avg_logprob"] < 0
        assert 0 < segment["compression_ratio"] < 2.4 and 0 <= segment["no_speech_prob"] <= 1
    words = [word["word"] for word in answer.get("words", ())]
    assert not words or words == spoken.split()


def test_each_channel_is_a_speaker_if_asked_for(create: Callable[..., Any]) -> None:
    asked = {"response_format": "diarized_json", "model": "gpt-4o-transcribe-diarize", "chunking_strategy": "auto"}
    answer = checked(TranscriptionDiarized, create("call_stereo.flac", **asked, extra_body={"channels": "split"}))
    assert {segment["speaker"] for segment in answer["segments"]} == {"A", "B"} and "warnings" not in answer
    assert " ".join(segment["text"] for segment in answer["segments"]) == answer["text"]


def test_what_is_accepted_and_changes_nothing_is_said(create: Callable[..., Any]) -> None:
    answer = create(
        response_format="diarized_json",
        chunking_strategy={"type": "server_vad", "silence_duration_ms": 300},
        known_speaker_names=["agent"],
        known_speaker_references=["data:audio/wav;base64,AAAA"],
    )
    assert {segment.speaker for segment in answer.segments} == {"A"}
    assert [said.split()[0] for said in answer.warnings] == ["The", "Voices", "known_speaker_names"]


def test_language_prompt_and_keywords_reach_the_engine(create: Callable[..., Any]) -> None:
    answer = create("sw_short.flac", languages=["sw", "en"], prompt="Mazungumzo", keywords=["habari"], temperature=0.0)
    assert "habari asubuhi" in answer.text and [one.code for one in answer.languages] == ["sw"]
    assert "habari asubuhi" in create("sw_short.flac", language="Swahili").text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's, of the whole endpoint
def test_translations_are_english(client: openai.OpenAI, toy_audio: Path) -> None:
    with (toy_audio / SHORT).open("rb") as file:
        answer = client.audio.translations.create(file=file, model="whisper-1", response_format="verbose_json")
    shaped = checked(TranslationVerbose, answer)
    assert (shaped["task"], shaped["language"]) == ("translate", "english") and shaped["segments"]
    text = client.audio.translations.create(file=toy_audio / SHORT, model="whisper-1").text
    assert text == shaped["text"]


def test_a_stand_in_says_so(create: Callable[..., Any]) -> None:
    *_, last = create(stream=True, extra_body={"engine": "pocketsphinx"})
    assert any("PocketSphinx" in warning for warning in last.warnings)


def test_nothing_is_kept_unless_asked_for(server: ServerProcess, api: httpx.Client, create: Callable[..., Any]) -> None:
    before, calls = kept(server), api.get("/v1/calls").json()
    create(prompt="a secret")
    assert kept(server) == before and api.get("/v1/calls").json() == calls
    job = api.get("/v1/jobs", params={"limit": 1}).json()["data"][0]
    assert (job["state"], job["priority"], job["call_id"]) == ("succeeded", "high", None)
    assert b"a secret" not in (server.data / "callreel.db").read_bytes()
    text = create(extra_body={"store": True}).text
    (call_id,) = kept(server) - before
    assert server.text(call_id) == text and api.get(f"/v1/calls/{call_id}").json()["title"] == SHORT


def test_text_is_streamed_as_it_is_certain(
    server: ServerProcess, create: Callable[..., Any], long_recording: Path
) -> None:
    before = kept(server)
    stream = create(long_recording, stream=True)
    first = next(stream)
    TranscriptionTextDeltaEvent.model_validate(first.model_dump(exclude_unset=True))
    (job,) = server.get("/v1/jobs?state=running")["data"]  # the end is not there yet
    assert first.delta and job["kind"] == "transcribe"
    *deltas, done = stream
    assert len(deltas) > 10 and {event.type for event in deltas} == {"transcript.text.delta"}
    TranscriptionTextDoneEvent.model_validate(done.model_dump(exclude_unset=True))
    assert "".join(event.delta for event in (first, *deltas)) == done.text
    wait_for(lambda: kept(server) == before, DEADLINE_S, "nothing is kept")


def test_streamed_segments_have_speakers(create: Callable[..., Any]) -> None:
    asked = {"response_format": "diarized_json", "stream": True, "extra_body": {"channels": "split"}}
    *events, done = create("call_stereo.flac", **asked)
    segments = [event for event in events if event.type == "transcript.text.segment"]
    for segment in segments:
        TranscriptionTextSegmentEvent.model_validate(segment.model_dump(exclude_unset=True), strict=True)
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    assert {segment.speaker for segment in segments} == {"A", "B"}
    assert [delta.segment_id for delta in deltas] == [segment.id for segment in segments]
    assert "".join(delta.delta for delta in deltas) == done.text


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"response_format": "docx"}, "response_format"),
        ({"language": "klingon"}, "language"),
        ({"languages": ["en", "xx"]}, "languages"),
        ({"language": "en", "languages": ["sw"]}, "languages"),
        ({"temperature": 1.5}, "temperature"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"response_format": "verbose_json", "timestamp_granularities": ["year"]}, "timestamp_granularities"),
        ({"response_format": "text", "include": ["logprobs"]}, "include"),
        ({"response_format": "srt", "stream": True}, "stream"),
        ({"chunking_strategy": {"type": "dice"}}, "chunking_strategy"),
        ({"known_speaker_names": ["a"]}, "known_speaker_names"),
        ({"known_speaker_names": ["a"], "known_speaker_references": ["x"]}, "known_speaker_references"),
        ({"model": "smal"}, "model"),
        ({"model": "/etc"}, "model"),
        ({"extra_body": {"engine": "os:system"}}, "engine"),
        ({"extra_body": {"lanugage": "en"}}, "lanugage"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(
    server: ServerProcess, create: Callable[..., Any], asked: dict[str, Any], param: str
) -> None:
    before = kept(server)
    with pytest.raises(openai.BadRequestError) as refused:
        create(**asked)
    assert refused.value.param == param and refused.value.code == "invalid_input"
    assert refused.value.type == "invalid_request_error" and kept(server) == before


def test_the_nearest_names_are_in_the_refusals(create: Callable[..., Any]) -> None:
    for asked, nearest in (({"language": "englsh"}, "english"), ({"model": "smal"}, "small")):
        with pytest.raises(openai.BadRequestError, match=nearest):
            create(**asked)


@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_in_the_middle_has_its_status(
    server: ServerProcess, client: openai.OpenAI, tmp_path: Path, stream: bool
) -> None:
    before = kept(server)
    (tmp_path / "song.mp3").write_bytes(b"no sound at all" * 100)
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(file=tmp_path / "song.mp3", model="whisper-1", stream=stream)
    assert (refused.value.param, refused.value.code) == ("file", "unreadable_media")
    wait_for(lambda: kept(server) == before, DEADLINE_S, "nothing is kept")
    with pytest.raises(openai.BadRequestError, match="en, sw"):  # a language, but none of this model's
        client.audio.transcriptions.create(
            file=Path(__file__).parents[2] / "data/audio" / SHORT, model="whisper-1", language="de", stream=stream
        )


def test_a_form_without_a_file_or_a_model(api: httpx.Client, toy_audio: Path) -> None:
    without = api.post("/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"x": ("", b"")})
    assert (without.status_code, without.json()["error"]["param"]) == (400, "file")
    without = api.post("/v1/audio/transcriptions", files={"file": (SHORT, (toy_audio / SHORT).read_bytes())})
    assert (without.status_code, without.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_cancels_the_job_and_leaves_nothing(
    server: ServerProcess, api: httpx.Client, long_recording: Path, stream: bool
) -> None:
    before, calls = kept(server), api.get("/v1/calls").json()
    with long_recording.open("rb") as file:
        asked = {"model": "whisper-1", "stream": str(stream).lower(), "store": "true"}
        request = api.build_request("POST", "/v1/audio/transcriptions", data=asked, files={"file": file})
        body = request.read()
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        connection.sendall(f"POST {request.url.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        job = wait_for(lambda: server.get("/v1/jobs?state=running")["data"], DEADLINE_S, "it runs")[0]
        child = running_child(server, job["id"])
        if stream:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    wait_for(lambda: is_gone(child), 10.0, "its process has ended")
    wait_for(lambda: kept(server) == before, DEADLINE_S, "nothing is kept")
    ended = server.get(f"/v1/jobs/{job['id']}")
    assert (ended["state"], ended["result"], ended["call_id"]) == ("cancelled", None, None)
    assert api.get("/v1/calls").json() == calls


def test_a_job_that_somebody_else_cancels_is_a_conflict(
    server: ServerProcess, api: httpx.Client, create: Callable[..., Any], long_recording: Path
) -> None:
    found: list[Exception] = []

    def ask() -> None:
        try:
            create(long_recording)
        except openai.APIStatusError as error:
            found.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    job = wait_for(lambda: server.get("/v1/jobs?state=running")["data"], DEADLINE_S, "it runs")[0]
    assert api.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
    asking.join(DEADLINE_S)
    assert isinstance(found[0], openai.ConflictError) and found[0].code == "cancelled"


def test_who_waits_goes_ahead_of_who_does_not(
    server: ServerProcess, api: httpx.Client, create: Callable[..., Any], toy_audio: Path, long_recording: Path
) -> None:
    busy = upload(api, long_recording)
    queued = [upload(api, toy_audio / "en_digits.flac", profile="fast") for _ in range(3)]
    api.post(f"/v1/jobs/{busy['id']}/cancel")
    create(extra_body={"profile": "accurate"})
    sooner = [server.finished_job(job["id"])["finished_at"] for job in queued]
    (waited,) = server.get("/v1/jobs?limit=1")["data"]
    assert waited["priority"] == "high" and waited["finished_at"] < sorted(sooner)[-1]


def test_models(client: openai.OpenAI) -> None:
    found = {model.id: checked(Model, model) for model in client.models.list()}
    assert {"whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"} <= set(found)
    assert not any(name.startswith("/") for name in found)  # the model of this server is a folder
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("org/none")
    assert refused.value.code == "model_not_found"
