"""`callreel keys`: who may use the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from callreel.cli.options import DATA_DIR, chosen, remote_flags
from callreel.cli.tables import table

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from callreel.settings import Settings
    from callreel.storage.database import Database

F = TypeVar("F", bound=Callable[..., Any])
Noun = dict[str, Any]

SHOWN_ONCE = "It is shown only now; send it as `Authorization: Bearer KEY`, or in CALLREEL_KEY."


class Keys(Protocol):
    """Who holds keys, wherever that is kept."""

    def clients(self) -> Iterable[Noun]: ...

    def create_key(self, name: str, role: str = "user") -> Noun: ...

    def rotate_key(self, client_id: str) -> Noun: ...

    def revoke_key(self, client_id: str) -> None: ...


def _reach(command: F) -> F:
    return remote_flags(DATA_DIR(command))


@click.group()
def keys() -> None:
    """Make and take back API keys: of a running server as its admin, or in a data folder that no server uses."""


@keys.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["user", "admin"]), default="user", help="An admin may make keys.")
@_reach
def create(name: str, role: str, **reach: Any) -> None:
    """Make a client called NAME and show its key, once."""
    with _keys(reach) as at:
        _show_key(at.create_key(name, role))


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@_reach
def list_(as_json: bool, **reach: Any) -> None:
    """Show who holds a key."""
    with _keys(reach) as at:
        found = list(at.clients())
    if as_json:
        for noun in found:
            click.echo(json.dumps(noun, ensure_ascii=False))
        return
    rows = [(n["name"], n["role"], "active" if n["active"] else "revoked", n["created_at"], n["id"]) for n in found]
    click.echo(table(rows, head=("name", "role", "key", "made", "id")))


@keys.command()
@click.argument("client")
@_reach
def revoke(client: str, **reach: Any) -> None:
    """Take back the key of CLIENT, a name or an id; its calls stay."""
    with _keys(reach) as at:
        found = _find(at, client)
        at.revoke_key(found["id"])
    click.echo(f"{found['name']} has no key any more")


@keys.command()
@click.argument("client")
@_reach
def rotate(client: str, **reach: Any) -> None:
    """Give CLIENT, a name or an id, a new key in place of its old one, and show it, once."""
    with _keys(reach) as at:
        _show_key(at.rotate_key(_find(at, client)["id"]))


def _show_key(noun: Noun) -> None:
    click.echo(noun["key"])
    click.echo(SHOWN_ONCE, err=True)


def _find(at: Keys, wanted: str) -> Noun:
    from callreel.errors import NotFound

    for noun in at.clients():
        if wanted in (noun["id"], noun["name"]):
            return noun
    raise NotFound(f"There is no client {wanted!r}", hint="callreel keys list")


@contextmanager
def _keys(reach: dict[str, Any]) -> Iterator[Keys]:
    with ExitStack() as stack:
        yield _find_keys(chosen(reach), stack)


def _find_keys(settings: Settings, stack: ExitStack) -> Keys:
    """At `url` if one is set; in the data folder if there is one and no server holds it; at the server that does."""
    from callreel.cli.remote import connect
    from callreel.errors import DataFolderInUse, ServerUnreachable
    from callreel.storage.database import Database

    client = stack.enter_context(connect(settings))

    def answers() -> bool:
        try:
            return bool(client.health())
        except ServerUnreachable:
            return False

    if settings.url is not None or (not (settings.data_dir / "callreel.db").exists() and answers()):
        return client
    try:
        return _InFolder(stack.enter_context(closing(Database.open(settings.data_dir))))
    except DataFolderInUse as held:
        if answers():
            return client
        hint = "Say where that server is with --url, and send an admin's key with --key"
        said = f"A server holds {settings.data_dir.absolute()}, and is not at {client.url}"
        raise DataFolderInUse(said, hint=hint) from held


class _InFolder:
    """Keys in the database of a data folder that is ours for now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def clients(self) -> Iterator[Noun]:
        from callreel.accounts import keys as store

        cursor: str | None = None
        while True:
            page = self._database.submit(partial(store.list_clients, cursor=cursor)).result()
            yield from map(asdict, page.data)
            cursor = page.next
            if cursor is None:
                return

    def create_key(self, name: str, role: str = "user") -> Noun:
        from callreel.accounts import keys as store
        from callreel.errors import InvalidInput

        def create(conn: Connection) -> tuple[str, str]:
            if role != "admin" and not store.any_key(conn):
                raise InvalidInput("The first key has to be an admin's", hint="callreel keys create NAME --role admin")
            return store.create_client(conn, name, role)

        client_id, key = self._database.submit(create).result()
        return {"id": client_id, "name": name, "role": role, "key": key}

    def rotate_key(self, client_id: str) -> Noun:
        from callreel.accounts import keys as store

        return {"id": client_id, "key": self._database.submit(lambda conn: store.rotate(conn, client_id)).result()}

    def revoke_key(self, client_id: str) -> None:
        from callreel.accounts import keys as store

        self._database.submit(lambda conn: store.revoke(conn, client_id)).result()
