from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callreel.engines.base import Decoded
from callreel.errors import StorageUnavailable
from callreel.offline.checkpoint import FILE, Checkpoint, Done, Plan, Record
from callreel.offline.chunk import Chunk
from callreel.text import DecodeStats, Word

PLAN = Plan([[Chunk(0, 16_000), Chunk(20_000, 30_000)], []], batch_size=3, parallel=2)
SAID = Decoded((Word(" één", 0.1, 0.30000000000000004, 0.9),), "nl", 0.8, DecodeStats(3, -0.25, 0.1, 1.2, 0.2))
RECORDS: list[Record] = [PLAN, Done({0: SAID}, probe=True), Done({0: SAID, 1: Decoded()}), Done({5: SAID})]


def write(folder: Path) -> bytes:
    with Checkpoint.opened(folder) as checkpoint:
        checkpoint.begin("me")
        for record in RECORDS:
            checkpoint.add(record)
    return (folder / FILE).read_bytes()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path)
    with Checkpoint.opened(tmp_path) as checkpoint:
        assert checkpoint.kept
        past = checkpoint.begin("me")
    assert past.plan == PLAN
    assert past.probed == {0: SAID}
    assert past.done == {0: SAID, 1: Decoded(), 5: SAID}


def test_another_request_never_takes_it(tmp_path: Path) -> None:
    write(tmp_path)
    with Checkpoint.opened(tmp_path) as checkpoint:
        assert checkpoint.begin("you").plan is None
        checkpoint.add(Done({7: SAID}))
    with Checkpoint.opened(tmp_path) as checkpoint:
        assert checkpoint.begin("you").done == {7: SAID}
    with Checkpoint.opened(tmp_path) as checkpoint:
        assert checkpoint.begin("me").plan is None


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_torn_end_is_cut_off(tmp_path: Path, data: st.DataObject) -> None:
    body = write(tmp_path)
    kept = data.draw(st.integers(0, len(body)))
    (tmp_path / FILE).write_bytes(body[:kept] + data.draw(st.binary(max_size=20)))
    with Checkpoint.opened(tmp_path) as checkpoint:
        past = checkpoint.begin("me")
        assert past.plan in (None, PLAN)
        assert past.probed.items() <= {0: SAID}.items()
        checkpoint.add(Done({9: SAID}))
    with Checkpoint.opened(tmp_path) as checkpoint:
        again = checkpoint.begin("me")
    assert (again.plan, again.probed, again.done) == (past.plan, past.probed, past.done | {9: SAID})
    (tmp_path / FILE).unlink()


def test_a_flipped_bit_ends_what_is_believed(tmp_path: Path) -> None:
    body = bytearray(write(tmp_path))
    body[len(body) // 2] ^= 1
    (tmp_path / FILE).write_bytes(body)
    with Checkpoint.opened(tmp_path) as checkpoint:
        past = checkpoint.begin("me")
    assert 5 not in past.done


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoint = Checkpoint()
    assert not checkpoint.kept
    assert checkpoint.begin("me").plan is None
    checkpoint.add(PLAN)
    assert checkpoint.begin("me").plan is None


def test_a_full_disk_costs_the_checkpoint_only(caplog: pytest.LogCaptureFixture) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        checkpoint = Checkpoint(full)
        checkpoint.add(PLAN)
        checkpoint.add(PLAN)
        assert checkpoint.kept
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


HOLDER = """
import sys
from pathlib import Path
from callreel.offline.checkpoint import Checkpoint
with Checkpoint.opened(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_one_attempts_alone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(StorageUnavailable, match="still running") as caught,
            Checkpoint.opened(tmp_path, wait_s=0.1),
        ):
            raise AssertionError("opened twice")
        assert caught.value.transient
        other.kill()
        with Checkpoint.opened(tmp_path) as checkpoint:  # waits for it to be dead
            checkpoint.begin("me")


def test_an_error_of_the_work_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Checkpoint.opened(tmp_path):
        raise FileNotFoundError
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable), Checkpoint.opened(tmp_path / "file"):
        pass
