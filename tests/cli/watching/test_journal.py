"""The journal of a watched folder: the last word on each file, whatever cut it off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callreel.cli.watching.folder import Found
from callreel.cli.watching.journal import Entry, Journal
from callreel.errors import Conflict

ENTRY = Entry("in/a.wav", 3, 1000, "ab" * 32, "sent", "j1")


def test_it_knows_after_a_restart_what_was_done(tmp_path: Path) -> None:
    watched = tmp_path / "calls"
    odd = replace(ENTRY, name="b\udcff.wav", sha256="cd" * 32)  # a name that is no text
    with Journal.open(tmp_path, watched) as journal:
        journal.write(ENTRY)
        journal.write(odd)
        journal.write(replace(ENTRY, state="done"))
    with Journal.open(tmp_path, watched) as journal:
        known = journal.of_name("in/a.wav")
        assert known is not None and known.state == "done" and known.at
        assert journal.of_content("ab" * 32) == known and journal.of_name("c.wav") is None
        assert [entry.name for entry in journal.sent()] == ["b\udcff.wav"]
    with Journal.open(tmp_path, tmp_path / "others") as journal:
        assert journal.of_name("in/a.wav") is None


def test_one_at_a_time(tmp_path: Path) -> None:
    with Journal.open(tmp_path, tmp_path / "calls"):
        with pytest.raises(Conflict, match="Another"), Journal.open(tmp_path, tmp_path / "calls"):
            pass
        with Journal.open(tmp_path, tmp_path / "others"):
            pass
    with Journal.open(tmp_path, tmp_path / "calls"):
        pass


def test_an_entry_is_of_one_state_of_a_file() -> None:
    found = Found(Path("/x/in/a.wav"), "in/a.wav", 3, 1000)
    assert ENTRY.is_of(found)
    assert not any(ENTRY.is_of(replace(found, **{n: v})) for n, v in {"name": "b", "size": 4, "mtime_ns": 1}.items())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_cut_anywhere_it_knows_all_whole_lines(tmp_path: Path, data: st.DataObject) -> None:
    for file in tmp_path.glob("*.jsonl"):
        file.unlink()
    watched = tmp_path / "calls"
    entries = [replace(ENTRY, name=f"{n}.wav", job_id=f"j{n}") for n in range(3)]
    with Journal.open(tmp_path, watched) as journal:
        for entry in entries:
            journal.write(entry)
    (file,) = tmp_path.glob("*.jsonl")
    whole = file.read_bytes()
    kept = whole[: data.draw(st.integers(0, len(whole)))]
    file.write_bytes(kept)
    after = replace(ENTRY, name="after.wav")
    with Journal.open(tmp_path, watched) as journal:
        journal.write(after)
    with Journal.open(tmp_path, watched) as journal:
        lines = kept.count(b"\n") + (kept[-1:] == b"}")  # a line that lacks only its end is whole
        assert [entry.name for entry in journal.sent()] == [f"{n}.wav" for n in range(lines)] + ["after.wav"]
