"""`callreel models`: which there are, which are here, and how one gets here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callreel.cli.options import DATA_DIR, chosen
from callreel.cli.tables import size, table

if TYPE_CHECKING:
    from callreel.engines.fetch import Progress

HEAD = ("model", "here", "download", "RAM", "VRAM", "languages", "speed", "RTFx", "for")
RIGHT = (2, 3, 4, 5, 6, 7)

STEPS = 1000  # of the progress bar


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@DATA_DIR
@click.pass_context
def models(ctx: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """List models with what they ask of a machine; fetch, import and remove them.

    RAM is for int8 on a CPU, VRAM for float16 on a GPU, speed relative to large-v3, RTFx what `callreel bench`
    measured here last: seconds of audio in a second.
    """
    if ctx.invoked_subcommand is not None:
        return
    rows = list(_rows(data_dir))
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    click.echo(table([_cells(row) for row in rows], head=HEAD, right=RIGHT))


@models.command()
@click.argument("name")
@DATA_DIR
def pull(name: str, data_dir: Path | None) -> None:
    """Fetch the model NAME, one of the list or a hub repository id; what an earlier try fetched is kept."""
    from callreel.engines.download import pull

    settings = chosen({"data_dir": data_dir})
    with click.progressbar(length=STEPS, label=name, file=sys.stderr, item_show_func=_amount) as bar:

        def show(progress: Progress) -> None:
            bar.update(int(progress.percent / 100 * STEPS) - bar.pos, progress)

        folder = pull(
            name,
            settings.models_folder,
            hub=settings.models.hub_url,
            proxy=settings.models.proxy,
            on_progress=show,
        )
    click.echo(str(folder))


@models.command("import")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", help="What it is called from now on; its folder's name if not given.")
@DATA_DIR
def import_(folder: Path, name: str | None, data_dir: Path | None) -> None:
    """Keep the CTranslate2 model in FOLDER under a name, without a hub."""
    from callreel.engines import shelf

    kept = shelf.import_folder(folder, chosen({"data_dir": data_dir}).models_folder, name)
    click.echo(f"{kept.name}: {kept.folder}")


@models.command()
@click.argument("name")
@DATA_DIR
def remove(name: str, data_dir: Path | None) -> None:
    """Remove the model NAME from the models folder; what a server has loaded stays loaded."""
    from callreel.engines import shelf

    freed = shelf.remove(name, chosen({"data_dir": data_dir}).models_folder)
    click.echo(f"{name} removed, {size(freed)}")


def _amount(progress: Progress | None) -> str | None:
    return f"{size(progress.done_bytes)} of {size(progress.total_bytes)}" if progress else None


def _rows(data_dir: Path | None) -> Iterator[dict[str, Any]]:
    """Every released model, then others that are here."""
    from callreel.engines import shelf
    from callreel.engines.models import MODELS
    from callreel.measure.measured import speeds

    settings = chosen({"data_dir": data_dir})
    here = {found.name: found for found in shelf.present(settings.models_folder)}
    measured = speeds(settings.data_dir)

    def of_here(name: str) -> dict[str, Any]:
        found, speed = here.get(name), measured.get(name)
        return {
            "present": found is not None,
            "folder": str(found.folder) if found else None,
            "size_bytes": found.size_bytes if found else None,
            "rtfx": speed.rtfx if speed else None,
            "rtfx_threads": speed.threads if speed else None,
        }

    for info in MODELS:
        yield {
            "name": info.name,
            "repository": info.repository,
            "download_bytes": info.download_bytes,
            "languages": info.languages,
            "ram_bytes": info.ram_bytes,
            "vram_bytes": info.vram_bytes,
            "relative_speed": info.speed,
            "use_case": info.use_case,
            **of_here(info.name),
        }
    for name in here.keys() - {info.name for info in MODELS}:
        yield {"name": name, **of_here(name)}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def sized(name: str) -> str:
        return size(row[name]) if row.get(name) else ""

    speed = row.get("relative_speed")
    return (
        click.style(row["name"], bold=row["present"]),
        "yes" if row["present"] else "",
        sized("download_bytes") or sized("size_bytes"),
        sized("ram_bytes"),
        sized("vram_bytes"),
        str(row.get("languages", "")),
        f"{speed:g}x" if speed else "",
        f"{row['rtfx']:g}" if row["rtfx"] else "",
        row.get("use_case", "yours"),
    )
