"""`callreel watch DIR`: imports what others drop into a folder."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callreel.cli.options import DATA_DIR, chosen, remote_flags

if TYPE_CHECKING:
    from callreel.cli.watching.importer import Importer

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


def _regex(ctx: click.Context, param: click.Parameter, value: str | None) -> re.Pattern[str] | None:
    if value is None:
        return None
    try:
        found = re.compile(value)
    except re.error as error:
        raise click.BadParameter(f"{value!r} is no regular expression: {error}") from None
    if not found.groupindex:
        raise click.BadParameter(f"{value!r} has no named group, such as (?P<agent>[a-z]+)")
    return found


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--recursive", "-r", is_flag=True, help="Look into folders below as well.")
@click.option("--pattern", multiple=True, help="Names to import, such as '*-in.wav'; audio and video if not given.")
@click.option("--after", type=click.Choice(["keep", "move", "delete"]), default="keep", help="move: into done/.")
@click.option("--stable", "stable_s", type=click.FloatRange(0), default=5.0, help="Unchanged so long: it is whole.")
@click.option("--every", "every_s", type=click.FloatRange(0.05), default=2.0, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="End when all that is whole is done, with 1 if a file could not be.")
@click.option("--labels", callback=_regex, help="Named groups in a file's path become labels: '(?P<agent>[a-z]+)-'.")
@click.option("--channels", type=click.Choice(["mix", "split"]), help="split: each channel is a speaker.")
@click.option("--speakers", help="Who is on the channels, such as agent,customer.")
@click.option("--language", help="ISO 639-1 code; detected if not given.")
@click.option("--profile", type=click.Choice(["fast", "balanced", "accurate"]), help="Quality.")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), help="Of its jobs.")
@remote_flags
@DATA_DIR
def watch(
    folder: Path,
    recursive: bool,
    pattern: tuple[str, ...],
    after: Any,
    stable_s: float,
    every_s: float,
    once: bool,
    labels: re.Pattern[str] | None,
    url: str | None,
    key: str | None,
    data_dir: Path | None,
    speakers: str | None,
    **options: str | None,
) -> None:
    """Send each new file of FOLDER to the server, once, whatever its name, and however often this is started.

    Files that cannot be imported are named and, unless all are kept, moved into failed/; moving one back, or touching
    it, tries it again. What was imported is remembered in watch/ in the data folder.
    """
    from callreel.cli.remote import connect
    from callreel.cli.watching.folder import PATTERNS, Folder
    from callreel.cli.watching.importer import Importer
    from callreel.cli.watching.journal import Journal

    settings = chosen({"url": url, "key": key, "data_dir": data_dir})
    asked: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if speakers:
        asked["speakers"] = [name.strip() for name in speakers.split(",")]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # also in mid-upload: the same key makes no second job
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # see folder.is_being_written
    with Journal.open(settings.data_dir / "watch", folder) as journal, connect(settings) as client:
        importer = Importer(
            client,
            Folder(folder, pattern or PATTERNS, recursive, stable_s),
            journal,
            asked,
            labels,
            after,
            say=_say,
        )
        click.echo(f"watching {click.format_filename(folder)}, importing to {client.url}")
        _rounds(importer, every_s, once=once)
    sys.exit(1 if once and importer.failed else 0)


def _say(text: str) -> None:
    """Names of files may be no text at all."""
    click.echo(text.encode(errors="surrogateescape").decode(errors="replace"))


def _rounds(importer: Importer, every_s: float, *, once: bool) -> None:
    """Round after round; what may pass, such as no server, is waited for, longer each time, but not `once`."""
    from callreel.errors import CallreelError

    pause_s = 0.0
    settled_by = time.monotonic() + importer.folder.stable_s  # what is not whole by then is the next run's
    while True:
        try:
            left = importer.round()
            if pause_s:
                click.echo("the server answers again")
            pause_s = 0.0
        except CallreelError as error:
            if once or not error.transient:
                raise
            if not pause_s:
                click.echo(f"{error}; trying again", err=True)
            pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        else:
            if once and not left.under_way and (not left.unwritten or time.monotonic() > settled_by):
                return
        time.sleep(max(every_s, pause_s))
