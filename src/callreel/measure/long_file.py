"""Memory whatever the length: the job's process and the engine's, for a short file and for a long one."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from callreel.engines.base import EngineSpec
from callreel.measure.harness import ServerProcess
from callreel.measure.material import babble_file
from callreel.measure.memory import MemoryWatch
from callreel.measure.speed import synthetic_subjects

TARGET_BYTES = 150_000_000
ROLES = ("job", "batch")
TOKENS = 8  # a window; memory is what counts here, not speed
WITHIN_S = 3600.0


def run(*, short_min: float = 5.0, long_min: float = 180.0, size: str = "tiny") -> dict[str, Any]:
    """A file of each length through a server of its own, with synthetic weights of `size`. Raises TimeoutError."""
    files = {}
    with (
        TemporaryDirectory(prefix="callreel-") as name,
        synthetic_subjects([size], EngineSpec("whisper", "", "models"), tokens=TOKENS) as (subject,),
    ):
        for label, length_min in (("short", short_min), ("long", long_min)):
            file = babble_file(Path(name) / f"{label}.wav", 60 * length_min)
            files[label] = _measured(Path(name) / label, subject.spec.model, file) | {"minutes": length_min}
            file.unlink()
    return {
        "size": size,
        "tokens_a_window": TOKENS,
        **files,
        "difference_bytes": files["long"]["together_bytes"] - files["short"]["together_bytes"],
        "target_bytes": TARGET_BYTES,
    }


def _measured(data: Path, model: str, file: Path) -> dict[str, Any]:
    flags = ("--engine", "whisper", "--model", model, "--live-engine", "pocketsphinx")
    environment = {"CALLREEL_MAX_FILE_SIZE": str(2 * file.stat().st_size)}
    with ServerProcess(data, *flags, environment=environment) as server:
        watched = MemoryWatch(lambda: {role: p for role, p in server.children().items() if role in ROLES})
        with watched:
            job = server.finished_job(server.transcribe(file, language="en")["id"], WITHIN_S)
    return {
        "state": job["state"],
        "wall_s": job["usage"]["wall_s"],
        "rtfx": job["usage"]["rtfx"],
        "peak_bytes": watched.peaks,
        "together_bytes": watched.together,
    }


def report(result: dict[str, Any]) -> str:
    """The result of `run` for people."""
    lines = [f"whisper {result['size']}, synthetic; peaks in MB"]
    for label in ("short", "long"):
        found = result[label]
        peaks = ", ".join(f"{role} {peak / 1e6:.0f}" for role, peak in found["peak_bytes"].items())
        lines.append(
            f"{found['minutes']:6.1f} min: {peaks}; together {found['together_bytes'] / 1e6:.0f}"
            f" ({found['state']}, RTFx {found['rtfx']})"
        )
    difference, target = result["difference_bytes"] / 1e6, result["target_bytes"] / 1e6
    return "\n".join([*lines, f"the long one takes {difference:.0f} MB more (target {target:.0f})"])
