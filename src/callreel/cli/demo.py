"""`callreel demo`: a call from file to transcript in half a minute, with nothing downloaded."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from callreel.client import Client

DATA = Path(__file__).parents[3] / "tests" / "data"  # of a checkout; no part of the package
CALL, MODEL = DATA / "audio" / "call_stereo.flac", DATA / "whisper-toy"
SPEAKERS = ("agent", "caller")


@click.command()
@click.option("--wait/--no-wait", default=True, help="Keep serving until Ctrl-C.")
def demo(wait: bool) -> None:
    """Send the sample call through a server of its own, with the toy model that comes with the sources."""
    from callreel.client import Client
    from callreel.errors import InvalidInput
    from callreel.measure.harness import ServerProcess
    from callreel.settings import PREFIX

    if not (CALL.is_file() and MODEL.is_dir()):
        raise InvalidInput("The sample call lies in a checkout only", hint="git clone, then make demo")
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(0))  # the server ends with us
    with tempfile.TemporaryDirectory(prefix="callreel-demo-") as folder:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            del os.environ[name]  # the demo is the same whatever is set here
        (no_settings := Path(folder) / "callreel.toml").touch()
        click.echo("Starting a server, with a toy model that knows some 260 words in synthetic voices ...")
        flags = ("--host", "127.0.0.1", "--engine", "whisper", "--model", str(MODEL))
        environment = {"CALLREEL_CONFIG": str(no_settings), "HF_HUB_OFFLINE": "1"}
        with ServerProcess(Path(folder) / "data", *flags, environment=environment) as server:
            with Client(f"http://127.0.0.1:{server.port}") as client:
                call_id = _transcribe(client)
                _show_links(client.url, call_id, server.live_port)
            if wait:
                click.echo("\nServing until Ctrl-C.")
                threading.Event().wait()


def _transcribe(client: Client) -> str:
    """The sample call's id, once its transcript has been shown."""
    click.echo(f"Sending {CALL.name}: a call of 69 s, the agent on one channel, the caller on the other.\n")
    job = client.submit(CALL, channels="split", speakers=SPEAKERS, title="Sample call")
    shown: set[tuple[str, int]] = set()

    def show(segments: list[dict[str, Any]]) -> None:
        for segment in segments:
            if (key := (segment["track"], segment["seq"])) not in shown:
                shown.add(key)
                _show(segment)

    for event in client.job_events(job["id"]):
        if event["type"] == "segments":
            show(event["data"]["segments"])
    job = client.wait(job["id"])
    show(client.transcript(job["call_id"])["segments"])  # all were told, unless the events broke off
    usage = job["usage"]
    click.echo(f"\n{usage['audio_s']:.0f} s of audio in {usage['wall_s']:.1f} s: RTFx {usage['rtfx']:.0f}.")
    return str(job["call_id"])


def _show(segment: dict[str, Any]) -> None:
    speaker = segment["speaker"] or segment["track"]
    name = click.style(f"{speaker:>6}", fg="green" if speaker == SPEAKERS[0] else "cyan")
    click.echo(f"{_clock(segment['start'])} {name}  {segment['text']}")


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60):02}:{seconds % 60:04.1f}"


def _show_links(url: str, call_id: str, live_port: int) -> None:
    from callreel.transcripts.formats import FORMATS

    click.echo("\nOpen the transcript as")
    for format in FORMATS:
        if format != "docx" or find_spec("docx"):  # an extra
            click.echo(f"  {format:4}  {url}/v1/calls/{call_id}/transcript?format={format}")
    click.echo("and")
    for what, at in (
        ("the call", f"{url}/v1/calls/{call_id}"),
        ("search", f"{url}/v1/search?q=refund"),
        ("the API", f"{url}/docs"),
        ("its numbers", f"{url}/metrics"),
        ("live streams", f"ws://127.0.0.1:{live_port} (any WhisperLive client)"),
    ):
        click.echo(f"  {what:12}  {at}")
