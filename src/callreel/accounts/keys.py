"""API keys and the clients that hold them. A key is shown once, when it is made; only its hash is kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, RowMapping, exists, select, update

from callreel.errors import Conflict, InvalidInput, NotFound
from callreel.storage.inserts import insert
from callreel.storage.pages import DEFAULT_LIMIT, Page, newest_first
from callreel.storage.tables import call, client, edit, job, webhook

KEY_PREFIX = "cr_"  # so that people and secret scanners know one when they see it
KEY_BYTES = 32
LOCAL_CLIENT = "local"
ROLES = ("admin", "user")


@dataclass(frozen=True, slots=True)
class Client:
    """Who holds a key, or, not `active`, did until it was taken back."""

    id: str
    name: str
    role: str
    active: bool
    created_at: str


def new_key() -> str:
    """A fresh key: the prefix and 256 random bits, safe in URLs and headers."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def key_hash(key: str) -> str:
    """SHA-256 of a key, in hex.

    A slow, salted hash protects passwords, which can be guessed; 256 random bits cannot, so the fast one is right, and
    costs microseconds a request.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def ensure_local_client(conn: Connection) -> str:
    """The id of the client "local", made where it is missing: an admin without a key, for requests over loopback."""
    conn.execute(insert(conn, client).values(name=LOCAL_CLIENT, role="admin").on_conflict_do_nothing())
    client_id: str = conn.execute(select(client.c.id).where(client.c.name == LOCAL_CLIENT)).scalar_one()
    return client_id


def create_client(conn: Connection, name: str, role: str) -> tuple[str, str]:
    """A new client's (id, key).

    The first admin with a key takes over what was made without one: nobody can ask without a key from then on. Raises
    InvalidInput for a name or role that cannot be, Conflict for a taken name.
    """
    if not name.strip() or name == LOCAL_CLIENT:
        raise InvalidInput(f'A client needs a name, and "{LOCAL_CLIENT}" is the server\'s own.', field="name")
    if role not in ROLES:
        raise InvalidInput(f"role must be one of {', '.join(ROLES)}.", field="role")
    key, first = new_key(), not _any_admin(conn)
    row = insert(conn, client).values(name=name, role=role, key_hash=key_hash(key))
    client_id = conn.execute(row.on_conflict_do_nothing().returning(client.c.id)).scalar_one_or_none()
    if client_id is None:
        raise Conflict(f"There is a client named {name!r} already; choose another name.", field="name")
    if first and role == "admin":
        _take_over(conn, client_id)
    return client_id, key


def client_of_key(conn: Connection, key: str) -> str | None:
    """The id of the client that holds `key`, None for a key that is not one of ours."""
    return conn.execute(select(client.c.id).where(client.c.key_hash == key_hash(key))).scalar_one_or_none()


def get_client(conn: Connection, client_id: str) -> Client:
    """One client, other than the server's own. Raises NotFound."""
    row = conn.execute(select(client).where(*_holder(client_id))).mappings().one_or_none()
    if row is None:
        raise NotFound(client_id=client_id)
    return _client(row)


def list_clients(conn: Connection, cursor: str | None = None, limit: int = DEFAULT_LIMIT) -> Page[Client]:
    """All clients but the server's own, newest first. Raises InvalidInput as `pages.newest_first` does."""
    page = newest_first(conn, client, client.c.name != LOCAL_CLIENT, cursor=cursor, limit=limit)
    return Page([_client(row) for row in page.data], page.next)


def rotate(conn: Connection, client_id: str) -> str:
    """A new key for a client, also for one whose key was taken back; its old one is good for nothing from now on.

    Raises NotFound.
    """
    key = new_key()
    if conn.execute(update(client).where(*_holder(client_id)).values(key_hash=key_hash(key))).rowcount == 0:
        raise NotFound(client_id=client_id)
    return key


def revoke(conn: Connection, client_id: str) -> Client:
    """Take a client's key back; its calls stay, and so does its name. Twice is harmless.

    Raises NotFound, and Conflict for the last admin's while others have keys: nobody could make another then.
    """
    found = get_client(conn, client_id)
    others = select(client.c.role).where(client.c.key_hash.is_not(None), client.c.id != client_id)
    roles = set(conn.execute(others).scalars())
    if found.active and found.role == "admin" and roles == {"user"}:
        raise Conflict("This is the last admin's key; make another admin, or take back the users' keys, first.")
    conn.execute(update(client).where(client.c.id == client_id).values(key_hash=None))
    return get_client(conn, client_id)


def role_of(conn: Connection, client_id: str) -> str:
    """The role of a client that there is."""
    role: str = conn.execute(select(client.c.role).where(client.c.id == client_id)).scalar_one()
    return role


def any_key(conn: Connection) -> bool:
    """Whether anybody holds a key yet."""
    return conn.execute(select(exists().where(client.c.key_hash.is_not(None)))).scalar_one()


def _holder(client_id: str) -> tuple[ColumnElement[bool], ...]:
    return client.c.id == client_id, client.c.name != LOCAL_CLIENT


def _client(row: RowMapping) -> Client:
    return Client(row["id"], row["name"], row["role"], row["key_hash"] is not None, row["created_at"])


def _any_admin(conn: Connection) -> bool:
    return conn.execute(select(exists().where(client.c.role == "admin", client.c.key_hash.is_not(None)))).scalar_one()


def _take_over(conn: Connection, client_id: str) -> None:
    """Give what the local client owns to `client_id`."""
    local = select(client.c.id).where(client.c.name == LOCAL_CLIENT).scalar_subquery()
    for owned in (call, job, webhook, edit):
        conn.execute(update(owned).where(owned.c.client_id == local).values(client_id=client_id))
