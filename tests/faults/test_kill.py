"""kill -9 under a transcription: it goes on where it was, says the same to the byte, and leaves nothing behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.faults.counting import decoded
from tests.faults.scene import (
    WITHIN_S,
    counting_server,
    document,
    family,
    files,
    is_whole,
    locked_database,
    rows,
    wait_until_gone,
)
from tests.server.helpers import is_gone

AT_PERCENT = 80.0
BATCH, PARALLEL = 1, 2
IN_FLIGHT = BATCH * PARALLEL  # windows whose decode the kill takes, or that were not on the disk yet

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Scene:
    """A server, and what it says about the recording when nothing happens to it."""

    server: ServerProcess
    notes: Path
    recording: Path
    document: list[dict[str, Any]]
    windows: Counter[str]

    def begin(self, until_percent: float) -> str:
        """A job that has come so far."""
        job_id: str = self.server.transcribe(self.recording)["id"]

        def reached() -> bool:
            job = self.server.get(f"/v1/jobs/{job_id}")
            assert job["state"] in ("queued", "running"), job
            return bool(job["progress"].get("percent", 0) >= until_percent)

        wait_for(reached, WITHIN_S, f"the job is at {until_percent} %")
        return job_id

    def end(self, job_id: str, before: Counter[str], *, attempts: int) -> Counter[str]:
        """The job has ended as it should; the windows that it took, which `before` did not have."""
        job = self.server.finished_job(job_id)
        assert (job["state"], job["attempts"], job["error"]) == ("succeeded", attempts, None), job
        assert document(self.server, job["call_id"]) == self.document
        wait_for(lambda: not list((self.server.data / "work").iterdir()), WITHIN_S, "its work is removed")
        assert rows(self.server.data, f"SELECT count(*) FROM transcript WHERE call_id = '{job['call_id']}'") == [(1,)]
        taken = decoded(self.notes) - before
        assert set(taken) == set(self.windows)
        return taken


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, long_recording: Path) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("kill")
    with counting_server(folder, window_s=0.05, CALLREEL_BATCH_MAX=str(BATCH)) as server:
        job = server.finished_job(server.transcribe(long_recording)["id"])
        said = document(server, job["call_id"])
        windows = decoded(folder / "windows")
        assert job["state"] == "succeeded" and len(said) > 10 and len(windows) > 3 * IN_FLIGHT
        assert set(windows.values()) == {1}
        yield Scene(server, folder / "windows", long_recording, said, windows)
        children = family(server)
        server.stop()
        wait_until_gone(children)
        assert is_whole(server.data)
        assert {path.split("/")[0] for path in files(server.data)} == {"objects", "logs"}


@pytest.mark.parametrize(("victim", "attempts"), [("job", 2), ("batch", 1), ("serve", 2)])
def test_a_transcription_goes_on_from_where_it_was(scene: Scene, victim: str, attempts: int) -> None:
    before = decoded(scene.notes)
    job_id = scene.begin(AT_PERCENT)
    if victim == "serve":
        processes = family(scene.server)
        scene.server.kill()
        wait_until_gone(processes)
        scene.server.start()
    else:
        child = scene.server.children()[victim]
        child.kill()
        wait_for(lambda: is_gone(child), WITHIN_S, "it is gone")
    taken = scene.end(job_id, before, attempts=attempts)
    twice = sum(taken.values()) - len(taken)
    assert twice <= IN_FLIGHT, f"{twice} of {len(taken)} windows were decoded again"


def test_a_job_that_was_claimed_and_not_begun_is_begun_by_the_next_server(scene: Scene) -> None:
    before = decoded(scene.notes)
    job_id = scene.server.transcribe(scene.recording)["id"]
    state = f"SELECT attempts FROM job WHERE id = '{job_id}' AND state = 'running'"
    wait_for(lambda: rows(scene.server.data, state), WITHIN_S, "it is claimed")
    processes = family(scene.server)
    scene.server.kill()
    wait_until_gone(processes)
    assert rows(scene.server.data, state) == [(1,)]
    scene.server.start()
    taken = scene.end(job_id, before, attempts=2)
    assert sum(taken.values()) - len(taken) <= IN_FLIGHT


def test_a_result_that_was_not_committed_is_not_worked_for_again(scene: Scene) -> None:
    before = decoded(scene.notes)
    job_id = scene.begin(AT_PERCENT)
    with locked_database(scene.server.data):
        # The child says what it has come to and is gone; its result waits for the database when the server dies.
        wait_for(lambda: "job" not in scene.server.children(), WITHIN_S, "the child has ended")
        processes = family(scene.server)
        scene.server.kill()
        wait_until_gone(processes)
    assert rows(scene.server.data, f"SELECT state FROM job WHERE id = '{job_id}'") == [("running",)]
    assert sum((decoded(scene.notes) - before).values()) == len(scene.windows)
    scene.server.start()
    taken = scene.end(job_id, before, attempts=2)
    assert set(taken.values()) == {1}
