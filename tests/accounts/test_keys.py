from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import Connection, select

from callreel.accounts import keys
from callreel.errors import Conflict, InvalidInput
from callreel.storage.tables import client


def test_keys_are_long_and_different() -> None:
    made = {keys.new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("cr_") and len(key) >= 3 + 43 for key in made)  # 43 base64 characters hold 32 bytes


def test_the_hash_is_sha256_in_hex() -> None:
    assert keys.key_hash("cr_x") == hashlib.sha256(b"cr_x").hexdigest()


def test_a_key_finds_its_client_and_is_not_stored(conn: Connection) -> None:
    assert not keys.any_key(conn)
    client_id, key = keys.create_client(conn, "desk", "user")
    keys.create_client(conn, "boss", "admin")
    assert keys.any_key(conn)
    assert keys.client_of_key(conn, key) == client_id
    stored = conn.execute(select(client).where(client.c.id == client_id)).mappings().one()
    assert stored["role"] == "user"
    assert key not in stored.values()


@pytest.mark.parametrize("key", ["", "cr_", "cr_wrong", "ключ"])
def test_a_wrong_key_finds_nobody(conn: Connection, key: str) -> None:
    keys.ensure_local_client(conn)
    keys.create_client(conn, "desk", "user")
    assert keys.client_of_key(conn, key) is None


def test_the_local_client_is_made_once_and_holds_no_key(conn: Connection) -> None:
    client_id = keys.ensure_local_client(conn)
    assert keys.ensure_local_client(conn) == client_id
    stored = conn.execute(select(client)).mappings().one()
    assert (stored["id"], stored["name"], stored["role"], stored["key_hash"]) == (client_id, "local", "admin", None)
    assert not keys.any_key(conn)


def test_a_name_is_taken_once(conn: Connection) -> None:
    keys.create_client(conn, "desk", "user")
    with pytest.raises(Conflict, match="desk"):
        keys.create_client(conn, "desk", "admin")


@pytest.mark.parametrize(("name", "role"), [("", "user"), (" ", "user"), ("local", "user"), ("desk", "root")])
def test_names_and_roles_that_cannot_be(conn: Connection, name: str, role: str) -> None:
    with pytest.raises(InvalidInput):
        keys.create_client(conn, name, role)
