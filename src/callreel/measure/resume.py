"""kill -9 in the last fifth of a long transcription: the text must be that of an undisturbed one, and what was done
must not be done again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from callreel.measure.harness import ServerProcess, wait_for
from callreel.measure.material import wave_file
from callreel.measure.recordings import recordings

VICTIMS = ("job", "serve", "batch")
KILL_AT_PERCENT = 80.0
TARGET_SHARE = 0.35  # of the undisturbed CPU time, for a second attempt that has a fifth left to do
WITHIN_S = 1800.0


def run(
    audio: Path,
    model: Path,
    *,
    minutes: float = 30.0,
    victims: Sequence[str] = VICTIMS,
    profile: str = "balanced",
) -> dict[str, Any]:
    """One undisturbed job, then one for each of `victims`, killed at 80 percent.

    `audio` holds recordings with references.json: all that is said in the commonest language, shuffled again and
    again, makes the file. `model` is a folder of Whisper weights that understands them.
    """
    plain = [r for r in recordings(audio) if r.group == "plain"]
    languages = [recording.language for recording in plain]
    language = max(sorted({name for name in languages if name}), key=languages.count)
    with TemporaryDirectory(prefix="callreel-") as name:
        parts = [recording.pcm for recording in plain if recording.language == language]
        file = wave_file(Path(name) / "long.wav", parts, 60 * minutes, seed=0)
        flags = ("--engine", "whisper", "--model", str(model), "--live-engine", "pocketsphinx")
        environment = {
            "CALLREEL_MAX_FILE_SIZE": str(2 * file.stat().st_size),
            "CALLREEL_FINAL_PROFILE": profile,
        }
        with ServerProcess(Path(name) / "data", *flags, environment=environment) as server:
            job = server.finished_job(server.transcribe(file, language=language)["id"], WITHIN_S)
            undisturbed, text = job["usage"], server.text(job["call_id"])
            results = [_killed(server, victim, file, language, undisturbed, text) for victim in victims]
    return {
        "minutes": minutes,
        "profile": profile,
        "killed_at_percent": KILL_AT_PERCENT,
        "undisturbed": undisturbed | {"words": len(text.split())},
        "results": results,
        "target_share_of_cpu": TARGET_SHARE,
    }


def _killed(
    server: ServerProcess, victim: str, file: Path, language: str, undisturbed: dict[str, Any], text: str
) -> dict[str, Any]:
    job_id = server.transcribe(file, language=language)["id"]
    percent = wait_for(lambda: _percent_from(server, job_id, KILL_AT_PERCENT), WITHIN_S, "the job is at 80 percent")
    killed_at = time.monotonic()
    if victim == "serve":
        server.kill()
        server.start()
    else:
        server.children()[victim].kill()
    job = server.finished_job(job_id, WITHIN_S)
    usage = job["usage"] or {}
    return {
        "killed": victim,
        "at_percent": percent,
        "state": job["state"],
        "attempts": job["attempts"],
        "same_text": job["state"] == "succeeded" and server.text(job["call_id"]) == text,
        "after_s": round(time.monotonic() - killed_at, 2),
        # Of the attempt that ended; where only the engine was killed it is all there was.
        "cpu_s": usage.get("cpu_s"),
        "share_of_cpu": round(usage["cpu_s"] / undisturbed["cpu_s"], 3) if usage else None,
    }


def _percent_from(server: ServerProcess, job_id: str, least: float) -> float | None:
    job = server.get(f"/v1/jobs/{job_id}")
    percent = float((job["progress"] or {}).get("percent", 0.0))
    return percent if percent >= least or job["state"] not in ("queued", "running") else None


def report(result: dict[str, Any]) -> str:
    """The result of `run` for people."""
    before = result["undisturbed"]
    lines = [
        f"{result['minutes']:g} min, {result['profile']}: undisturbed {before['wall_s']:.1f} s,"
        f" {before['cpu_s']:.1f} s of CPU, {before['words']} words; then killed at {result['killed_at_percent']:.0f} %",
        "killed   text       attempts  last attempt's CPU  of the undisturbed  from the kill to the end",
    ]
    lines += [
        f"{r['killed']:8} {'same' if r['same_text'] else 'DIFFERENT':9} {r['attempts']:9} {r['cpu_s'] or 0.0:16.1f} s"
        f" {100 * (r['share_of_cpu'] or 0.0):16.1f} % {r['after_s']:22.1f} s"
        for r in result["results"]
    ]
    return "\n".join([*lines, f"target: same text, at most {100 * result['target_share_of_cpu']:.0f} % of the CPU"])
