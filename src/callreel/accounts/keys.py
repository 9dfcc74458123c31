"""API keys and the clients that hold them. A key is shown once, when it is made; only its hash is kept."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import Connection, exists, select

from callreel.errors import Conflict, InvalidInput
from callreel.storage.inserts import insert
from callreel.storage.tables import client

KEY_PREFIX = "cr_"  # so that people and secret scanners know one when they see it
KEY_BYTES = 32
LOCAL_CLIENT = "local"
ROLES = ("admin", "user")


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
    """A new client's (id, key). Raises InvalidInput for a name or role that cannot be, Conflict for a taken name."""
    if not name.strip() or name == LOCAL_CLIENT:
        raise InvalidInput(f'A client needs a name, and "{LOCAL_CLIENT}" is the server\'s own.', field="name")
    if role not in ROLES:
        raise InvalidInput(f"role must be one of {', '.join(ROLES)}.", field="role")
    key = new_key()
    row = insert(conn, client).values(name=name, role=role, key_hash=key_hash(key))
    client_id = conn.execute(row.on_conflict_do_nothing().returning(client.c.id)).scalar_one_or_none()
    if client_id is None:
        raise Conflict(f"There is a client named {name!r} already; choose another name.", field="name")
    return client_id, key


def client_of_key(conn: Connection, key: str) -> str | None:
    """The id of the client that holds `key`, None for a key that is not one of ours."""
    return conn.execute(select(client.c.id).where(client.c.key_hash == key_hash(key))).scalar_one_or_none()


def role_of(conn: Connection, client_id: str) -> str:
    """The role of a client that there is."""
    role: str = conn.execute(select(client.c.role).where(client.c.id == client_id)).scalar_one()
    return role


def any_key(conn: Connection) -> bool:
    """Whether anybody holds a key yet."""
    return conn.execute(select(exists().where(client.c.key_hash.is_not(None)))).scalar_one()
