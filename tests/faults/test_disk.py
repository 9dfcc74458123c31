"""A disk that is full: what does not fit is refused by name, nothing of it stays, and the server goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.conftest import missing
from tests.faults.scene import WITHIN_S, counting_server, files, is_whole
from tests.server.helpers import TOY_AUDIO, caller, upload

MIB = 1 << 20
DISK_BYTES = 160 * MIB

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system of its own under a server's data folder."""

    server: ServerProcess

    @property
    def free_bytes(self) -> int:
        return os.statvfs(self.server.data).f_bavail * os.statvfs(self.server.data).f_frsize

    @contextmanager
    def filled(self, left_bytes: int) -> Iterator[None]:
        """Somebody else's file takes all but so many bytes."""
        ballast = self.server.data / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free_bytes - left_bytes)
        try:
            yield
        finally:
            ballast.unlink()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "data").mkdir()
    with ExitStack() as stack:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder / "data")]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            missing("a small disk can only be made by root, where mounting is allowed")
        stack.callback(subprocess.run, ["umount", "--lazy", str(folder / "data")], check=True)
        server = stack.enter_context(counting_server(folder))
        yield Disk(server)
        server.stop()
        assert is_whole(server.data)


@pytest.fixture
def api(disk: Disk) -> Iterator[httpx.Client]:
    with caller(disk.server) as client:
        yield client


def works(disk: Disk, api: httpx.Client) -> bool:
    job = upload(api, TOY_AUDIO / "en_short.wav")
    return bool(disk.server.finished_job(job["id"])["state"] == "succeeded")


def test_an_upload_that_does_not_fit_is_refused_before_it_is_read(disk: Disk, api: httpx.Client) -> None:
    before = files(disk.server.data)
    with disk.filled(left_bytes=66 * MIB):
        refused = api.post("/v1/jobs", files={"file": ("a.wav", bytes(5 * MIB))})
        assert refused.status_code == 507 and refused.json()["error"]["code"] == "out_of_space"
        assert refused.json()["error"]["hint"] or "free" in refused.json()["error"]["message"]
    assert files(disk.server.data) == before
    assert works(disk, api)


def test_a_disk_that_becomes_full_in_mid_upload(disk: Disk, api: httpx.Client) -> None:
    before = files(disk.server.data)
    with ExitStack() as stack:

        def body() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
            for i in range(20):
                yield bytes(MIB)
                if i == 2:
                    wait_for(lambda: files(disk.server.data) - before, WITHIN_S, "it comes to the disk")
                    stack.enter_context(disk.filled(left_bytes=4 * MIB))
            yield b"\r\n--x--\r\n"

        refused = api.post("/v1/jobs", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})
        assert refused.status_code == 507 and refused.json()["error"]["code"] == "out_of_space"
        assert files(disk.server.data) == before
        assert api.get("/health").status_code == 200
    assert works(disk, api)


def test_a_job_that_finds_no_room_for_its_sound_is_tried_again(
    disk: Disk, api: httpx.Client, long_recording: Path
) -> None:
    """3 MB of sound; MP3 and the like unfold to ten times what was uploaded."""
    before = files(disk.server.data)
    assert long_recording.stat().st_size > 2 * MIB
    job = upload(api, long_recording)
    with disk.filled(left_bytes=MIB):
        failed = disk.server.finished_job(job["id"])
    assert (failed["state"], failed["attempts"]) == ("failed", 3), failed
    assert failed["error"]["code"] == "out_of_space" and failed["error"]["hint"], failed["error"]
    left = files(disk.server.data) - before
    assert left == {f"logs/jobs/{job['id']}.log"}
    assert works(disk, api)


def test_a_job_goes_on_when_there_is_room_again(disk: Disk, api: httpx.Client, long_recording: Path) -> None:
    job = upload(api, long_recording)
    with disk.filled(left_bytes=MIB):
        wait_for(lambda: api.get(f"/v1/jobs/{job['id']}").json()["error"], WITHIN_S, "it has failed once")
    done = disk.server.finished_job(job["id"])
    assert done["state"] == "succeeded" and done["attempts"] in (2, 3), done


def test_a_database_without_room_says_so_and_recovers(disk: Disk, api: httpx.Client) -> None:
    call = upload(api, TOY_AUDIO / "en_short.wav")
    disk.server.finished_job(call["id"])
    path = f"/v1/calls/{call['call_id']}"
    with disk.filled(left_bytes=0):
        answers = []

        def refused() -> bool:
            answers.append(api.patch(path, json={"title": "x" * 200, "labels": {"a": "y" * 200}}))
            return answers[-1].status_code >= 500

        wait_for(refused, WITHIN_S, "the last room in the log of the database is used up")
        error = answers[-1].json()["error"]
        assert answers[-1].status_code in (503, 507) and error["code"] in ("storage_unavailable", "out_of_space"), error
        assert api.get(path).status_code == 200  # what is there can be read
        assert not api.get("/ready").json()["ready"]
    assert api.patch(path, json={"title": "after"}).status_code == 200
    assert api.get("/ready").json()["ready"]
    assert works(disk, api) and is_whole(disk.server.data)
