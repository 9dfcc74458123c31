"""Which addresses a stranger's URL may lead to: public ones, and those in `sources.allow_networks`."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

import httpx

from callreel.errors import ForbiddenAddress, InvalidInput

Address: TypeAlias = IPv4Address | IPv6Address
Resolver: TypeAlias = Callable[[str, int], Sequence[str]]  # the addresses of a host's port; raises OSError

SCHEMES = {"http": 80, "https": 443}
URL_HINT = "Give one that begins with https:// or http:// and the name of a host; local files are uploaded"
# What `is_global` says yes to although it leads inside: addresses that a cloud's machines reach their host at, IPv6
# with IPv4 or a local network behind it, and ranges that came up since.
INSIDE = tuple(
    map(
        ip_network,
        (
            "168.63.129.16/32",  # Azure's host
            "192.0.0.0/24",
            "192.88.99.0/24",
            "::/96",
            "64:ff9b:1::/48",  # RFC 8215
            "100::/64",
            "2001::/23",  # Teredo is in here
            "3fff::/20",
            "5f00::/16",
            "fec0::/10",
        ),
    )
)
NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def check_url(url: str, allow_networks: Sequence[str] = ()) -> httpx.URL:
    """The URL, parsed, if nothing speaks against it that can be seen without the network.

    Raises InvalidInput for what is no http or https URL, ForbiddenAddress for this machine's names and for a private
    address in any spelling. A name may still lead to one: `allowed_addresses` is for who connects.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise InvalidInput(f"This is no URL: {error}", hint=URL_HINT, field="url") from None
    if parsed.scheme not in SCHEMES or not parsed.host or not 0 < (parsed.port or 1) < 65536:
        raise InvalidInput("Only http:// and https:// URLs with a host can be fetched.", hint=URL_HINT, field="url")
    host = host_of(parsed)
    literal = _literal(host)
    if literal is not None:
        _require_allowed(host, literal, allow_networks)
    elif not re.fullmatch(r"[a-z0-9_.-]+", host):
        raise InvalidInput(f"{host} is no name of a host.", hint=URL_HINT, field="url")
    elif host == "localhost" or host.endswith(".localhost"):
        _require_allowed(host, IPv4Address("127.0.0.1"), allow_networks)
    return parsed


def host_of(url: httpx.URL) -> str:
    """The host as it goes into a request: ASCII, lower case, without the dot that ends a full name."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


def allowed_addresses(host: str, port: int, allow_networks: Sequence[str], resolve: Resolver) -> list[str]:
    """The addresses to connect to for `host`, each of them allowed.

    Raises ForbiddenAddress if a single one is not: a name that leads both inside and outside is no accident. Raises
    OSError when the name has none.
    """
    literal = _literal(host)
    found = [str(literal)] if literal is not None else list(dict.fromkeys(resolve(host, port)))
    if not found:
        raise OSError(f"{host} has no address")
    for address in found:
        _require_allowed(host, ip_address(address), allow_networks)
    return found


def system_resolver(host: str, port: int) -> Sequence[str]:
    """The addresses that this machine's resolver knows, the preferred ones first."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: Address) -> bool:
    """Is this an address of the Internet at large?"""
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not any(address in network for network in INSIDE)
    )


def _require_allowed(host: str, address: Address, allow_networks: Sequence[str]) -> None:
    networks = [ip_network(network, strict=False) for network in allow_networks]
    for face in _faces(address):
        if not is_public(face) and not any(face in network for network in networks):
            raise ForbiddenAddress(host=host, address=str(address))


def _faces(address: Address) -> tuple[Address, ...]:
    """What an address leads to: itself, the IPv4 address that it only wraps, or both where it may be either."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return (address.ipv4_mapped,)
        if address in NAT64:
            return (IPv4Address(int(address) & 0xFFFF_FFFF),)
        if address.sixtofour is not None:
            return address, address.sixtofour
    return (address,)


def _literal(host: str) -> Address | None:
    """The address that `host` spells: also as 127.1, 2130706433, 0x7f000001 or 0177.0.0.1, as C libraries read it."""
    with suppress(ValueError):
        return ip_address(host.partition("%")[0])  # %: the interface of a link-local address
    with suppress(OSError):
        return IPv4Address(socket.inet_aton(host))
    return None
