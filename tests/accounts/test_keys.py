from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import Connection, select

from callreel.accounts import keys
from callreel.calls import store as calls
from callreel.errors import Conflict, InvalidInput, NotFound
from callreel.storage.tables import client
from tests.storage.plans import plan


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


def test_clients_are_listed_without_their_keys(conn: Connection) -> None:
    keys.ensure_local_client(conn)
    made = [keys.create_client(conn, name, role) for name, role in (("desk", "user"), ("boss", "admin"))]
    page = keys.list_clients(conn)
    assert [(c.id, c.name, c.role, c.active) for c in page.data] == [
        (made[1][0], "boss", "admin", True),
        (made[0][0], "desk", "user", True),
    ]
    secrets = {key for _, key in made} | {keys.key_hash(key) for _, key in made}
    assert not any(secret in str(page.data) for secret in secrets)
    first = keys.list_clients(conn, limit=1)
    assert first.data + keys.list_clients(conn, first.next, limit=1).data == page.data


def test_a_key_that_was_taken_back_opens_nothing(conn: Connection) -> None:
    client_id, key = keys.create_client(conn, "desk", "user")
    assert not keys.revoke(conn, client_id).active
    assert not keys.revoke(conn, client_id).active
    assert keys.client_of_key(conn, key) is None
    assert not keys.any_key(conn)
    with pytest.raises(Conflict):
        keys.create_client(conn, "desk", "user")  # whose calls stay, so stays whose they are


def test_a_rotated_key_takes_the_place_of_the_old_one(conn: Connection) -> None:
    client_id, old = keys.create_client(conn, "desk", "user")
    new = keys.rotate(conn, client_id)
    assert (keys.client_of_key(conn, old), keys.client_of_key(conn, new)) == (None, client_id)
    keys.revoke(conn, client_id)
    again = keys.rotate(conn, client_id)
    assert keys.client_of_key(conn, again) == client_id
    assert keys.get_client(conn, client_id).active


def test_the_last_admin_keeps_its_key_while_others_have_theirs(conn: Connection) -> None:
    admin, _ = keys.create_client(conn, "boss", "admin")
    user, _ = keys.create_client(conn, "desk", "user")
    with pytest.raises(Conflict, match="admin"):
        keys.revoke(conn, admin)
    other, _ = keys.create_client(conn, "deputy", "admin")
    keys.revoke(conn, admin)
    keys.revoke(conn, user)
    keys.revoke(conn, other)  # nobody is locked in
    assert not keys.any_key(conn)


def test_the_servers_own_client_has_no_key_to_change(conn: Connection) -> None:
    for client_id in (keys.ensure_local_client(conn), "none"):
        for change in (keys.get_client, keys.rotate, keys.revoke):
            with pytest.raises(NotFound):
                change(conn, client_id)


def test_who_asks_is_looked_up_by_index(conn: Connection) -> None:
    assert "(key_hash=?)" in plan(conn, lambda: keys.client_of_key(conn, "cr_x"))


def test_the_first_admin_takes_over_what_was_made_without_a_key(conn: Connection) -> None:
    local = keys.ensure_local_client(conn)
    call = calls.create_call(conn, client_id=local, mode="postcall_only", state="done")
    user, _ = keys.create_client(conn, "desk", "user")
    assert calls.get_call(conn, call.id, local)
    admin, _ = keys.create_client(conn, "boss", "admin")
    assert calls.get_call(conn, call.id, admin) and not calls.list_calls(conn, user).data
    later = calls.create_call(conn, client_id=local, mode="postcall_only", state="done")
    keys.create_client(conn, "other boss", "admin")
    assert calls.get_call(conn, later.id, local)
