from __future__ import annotations

import asyncio
import socket
import threading

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Window
from callreel.engines.frames import (
    LENGTH,
    MAX_FRAME_BYTES,
    Answer,
    Hello,
    Request,
    error_from,
    pack,
    receive,
    receive_async,
)
from callreel.errors import CallreelError, EngineCrashed, EngineUnavailable, InvalidInput, ModelMissing
from callreel.text import DecodeStats, Word

numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=20)
windows = st.lists(
    st.builds(Window, npst.arrays(np.int16, st.integers(0, 300)), texts),
    max_size=4,
)
options = st.builds(
    DecodeOptions,
    language=st.none() | texts,
    task=texts,
    beam_size=st.integers(1, 10),
    temperature=numbers,
    hotwords=texts,
)
stats = st.builds(DecodeStats, st.integers(0, 448), st.none() | numbers, st.none() | numbers, st.none() | numbers)
decodes = st.builds(
    Decoded,
    words=st.lists(st.builds(Word, texts, numbers, numbers, numbers), max_size=5).map(tuple),
    language=st.none() | texts,
    language_probability=numbers,
    stats=stats,
)


def through_a_socket(data: bytes) -> bytes:
    one, other = socket.socketpair()
    with one, other:
        sender = threading.Thread(target=one.sendall, args=(data,))
        sender.start()
        try:
            return receive(other)
        finally:
            sender.join()


async def through_a_stream(data: bytes, part: int) -> bytes:
    reader = asyncio.StreamReader()
    task = asyncio.create_task(receive_async(reader))
    for at in range(0, len(data), part):
        reader.feed_data(data[at : at + part])
        await asyncio.sleep(0)
    return await task


@given(windows, options)
def test_a_request_arrives_as_it_was_sent(sent: list[Window], asked: DecodeOptions) -> None:
    request = msgspec.msgpack.decode(through_a_socket(pack(Request.of(sent, asked))), type=Request)
    assert request.options == asked
    received = request.as_windows()
    assert [w.prompt for w in received] == [w.prompt for w in sent]
    for got, expected in zip(received, sent, strict=True):
        assert got.pcm.dtype == np.int16
        np.testing.assert_array_equal(got.pcm, expected.pcm)


@settings(deadline=None)  # an event loop an example
@given(st.lists(decodes, max_size=3), st.integers(1, 200))
def test_an_answer_arrives_in_parts_of_any_size(decoded: list[Decoded], part: int) -> None:
    body = asyncio.run(through_a_stream(pack(Answer(decoded)), part))
    assert msgspec.msgpack.decode(body, type=Answer).decoded == decoded


def test_a_hello_arrives_with_its_capabilities() -> None:
    hello = Hello("whisper", "small", Capabilities(batch=4, translate=True, languages=("en", "sw")))
    assert msgspec.msgpack.decode(through_a_socket(pack(hello)), type=Hello) == hello


def test_a_frame_larger_than_the_socket_holds() -> None:
    sent = [Window(np.arange(480_000, dtype=np.int32).astype(np.int16)) for _ in range(4)]
    request = msgspec.msgpack.decode(through_a_socket(pack(Request.of(sent, DecodeOptions()))), type=Request)
    np.testing.assert_array_equal(request.as_windows()[3].pcm, sent[3].pcm)


def test_32_windows_of_30_s_fit_and_more_than_the_limit_is_not_even_sent() -> None:
    window = Window(np.zeros(480_000, np.int16))
    assert len(pack(Request.of([window] * 32, DecodeOptions()))) < MAX_FRAME_BYTES
    with pytest.raises(InvalidInput, match="fewer windows"):
        pack(Request.of([window] * 80, DecodeOptions()))


@pytest.mark.parametrize("size", [MAX_FRAME_BYTES + 1, 2**31, 2**32 - 1])
def test_a_hostile_length_is_refused_before_memory_is_taken(size: int) -> None:
    with pytest.raises(EngineUnavailable, match="not our protocol"):
        through_a_socket(LENGTH.pack(size))
    with pytest.raises(EngineUnavailable, match="not our protocol"):
        asyncio.run(through_a_stream(LENGTH.pack(size), 4))


@given(st.binary(max_size=60))
def test_a_peer_that_goes_half_way_is_a_connection_error(begun: bytes) -> None:
    whole = LENGTH.pack(100) + begun
    one, other = socket.socketpair()
    with other:
        with one:
            one.sendall(whole)
        with pytest.raises(ConnectionError):
            receive(other)


@pytest.mark.parametrize("kind", [InvalidInput, EngineUnavailable, ModelMissing, EngineCrashed])
def test_an_engines_error_is_the_same_on_the_other_side(kind: type[CallreelError]) -> None:
    error = kind("It hurts", hint="Rest", window=3)
    other = error_from(error.as_dict())
    assert type(other) is kind
    assert other.as_dict() == error.as_dict()
    assert (other.status, other.transient) == (error.status, error.transient)


def test_any_other_error_is_an_engine_that_is_not_there() -> None:
    error = error_from(CallreelError("RuntimeError: the pen is empty").as_dict())
    assert isinstance(error, EngineUnavailable)
    assert (error.code, error.status, error.transient) == ("internal", 503, False)
    assert EngineUnavailable.code == "engine_unavailable"  # the class is left as it was
