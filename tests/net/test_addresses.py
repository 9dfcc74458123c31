from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.errors import CallreelError, ForbiddenAddress, InvalidInput
from callreel.net import check_url
from callreel.net.addresses import allowed_addresses, is_public, system_resolver
from tests.net.sites import Names

INSIDE = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "017700000001",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "files.localhost",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.192",
    "[::1]",
    "[::]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a00:1]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[ff0e::1]",
]


@pytest.mark.parametrize("host", INSIDE)
def test_an_inside_address_is_refused_in_every_spelling(host: str) -> None:
    with pytest.raises(ForbiddenAddress) as refused:
        check_url(f"http://{host}:8000/call.wav")
    assert refused.value.code == "address_not_allowed"
    assert "sources.allow_networks" in refused.value.hint


@pytest.mark.parametrize(
    "host",
    ["example.com", "93.184.215.14", "[2606:4700::1111]", "1.1", "[64:ff9b::101:101]", "bücher.example", "10.com"],
)
def test_what_is_outside_or_a_name_passes(host: str) -> None:
    assert check_url(f"https://{host}/call.wav").scheme == "https"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "call.wav",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "gopher://example.com/",
        "data:audio/wav;base64,AAAA",
        "rtmp://example.com/live",
        "http://",
        "http:///x",
        "//example.com/x",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://[::1/",
        "http://0177.0.0.1/",
        "http://127%2e0.0.1/",
        "http://１２７.0.0.1/",
        "http://[",
        "http://exa\x00mple.com/",
        "http://example.com/\r\nHost: b",
        "http://" + "a" * 70_000,
    ],
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_url(url)
    assert refused.value.code == "invalid_input"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_networks_that_are_allowed_may_be_reached(host: str) -> None:
    assert check_url(f"http://{host}/", ["127.0.0.0/8"])
    with pytest.raises(ForbiddenAddress):
        check_url(f"http://{host}/", ["10.0.0.0/8"])


def test_an_address_with_another_inside_needs_leave_for_that_too() -> None:
    for address, outside, inside in (
        ("64:ff9b::10.0.0.1", "64:ff9b::/96", "10.0.0.0/8"),
        ("2002:a00:1::1", "2002::/16", "10.0.0.0/8"),
    ):
        with pytest.raises(ForbiddenAddress):
            check_url(f"http://[{address}]/", [outside])
        assert check_url(f"http://[{address}]/", [outside, inside])


def test_every_address_of_a_name_must_be_allowed() -> None:
    names = Names(both_test=[["93.184.215.14", "10.0.0.1"]], out_test=[["93.184.215.14", "93.184.215.14"]])
    with pytest.raises(ForbiddenAddress) as refused:
        allowed_addresses("both.test", 80, (), names)
    assert refused.value.detail == {"host": "both.test", "address": "10.0.0.1"}
    assert allowed_addresses("out.test", 80, (), names) == ["93.184.215.14"]
    assert len(allowed_addresses("both.test", 80, ["10.0.0.0/24"], names)) == 2


def test_a_literal_address_is_never_looked_up() -> None:
    names = Names()
    assert allowed_addresses("0x5d.0xb8.0xd7.0xe", 80, (), names) == ["93.184.215.14"]
    assert names.asked == []


def test_the_systems_resolver_knows_this_machine() -> None:
    assert set(system_resolver("localhost", 80)) <= {"127.0.0.1", "::1"}


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_nothing_private_is_public(address: IPv4Address | IPv6Address) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_all_spellings_of_an_address_are_judged_alike(address: IPv4Address) -> None:
    verdicts = set()
    for host in (str(address), str(int(address)), hex(int(address)), f"[::ffff:{address}]", f"[64:ff9b::{address}]"):
        try:
            check_url(f"http://{host}/")
            verdicts.add(True)
        except ForbiddenAddress:
            verdicts.add(False)
    assert verdicts == {is_public(address)}
    assert ip_address(socket.inet_ntoa(address.packed)) == address


@given(st.text() | st.text().map("http://{}".format) | st.from_regex(r"https?://[\w.:\[\]@%-]*/?"))
def test_anything_else_is_an_answer_not_a_crash(url: str) -> None:
    with suppress(CallreelError):
        assert check_url(url).host
