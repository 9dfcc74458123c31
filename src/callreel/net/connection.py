"""One HTTP request over a connection that reaches allowed addresses only, and ends by a deadline whatever happens."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import httpcore
import httpx

from callreel import __version__
from callreel.errors import SourceRefused, SourceUnavailable
from callreel.net.addresses import SCHEMES, Resolver, allowed_addresses, host_of

CONNECT_S = 10.0
READ_S = 30.0  # without a single byte

Headers = Sequence[tuple[str, str]]


@contextmanager
def exchange(
    method: str,
    url: httpx.URL,
    headers: Headers = (),
    body: bytes = b"",
    *,
    allow_networks: Sequence[str],
    deadline: float,
    resolve: Resolver,
    read_s: float = READ_S,
) -> Iterator[httpcore.Response]:
    """The answer to one request, its body not read yet; redirects are answers like any other.

    Names are resolved once, checked, and connected to by the address that was checked, so that nobody can answer
    differently in between. No proxy is used, since a proxy would resolve by itself. `deadline` is on `time.monotonic`.
    Raises ForbiddenAddress; SourceUnavailable for what may pass; SourceRefused for a certificate that is not valid.
    """
    host = host_of(url)
    core_url = httpcore.URL(
        scheme=url.raw_scheme, host=host.encode(), port=url.port or SCHEMES[url.scheme], target=url.raw_path
    )
    authority = f"[{host}]" if ":" in host else host
    sent = [
        ("Host", authority if url.port is None else f"{authority}:{url.port}"),
        ("User-Agent", f"callreel/{__version__}"),
        *headers,
        *([("Content-Length", str(len(body)))] if body else []),
    ]
    request = httpcore.Request(
        method,
        core_url,
        headers=[(name.encode(), value.encode()) for name, value in sent],
        content=body,
        extensions={"timeout": {"connect": CONNECT_S, "read": read_s, "write": read_s, "pool": 0}},
    )
    backend = _Guarded(tuple(allow_networks), deadline, resolve)
    with (
        _named_faults(host, deadline),
        httpcore.ConnectionPool(_tls(), max_connections=1, network_backend=backend) as pool,
    ):
        response = pool.handle_request(request)
        try:
            yield response
        finally:
            response.close()


def header(response: httpcore.Response, name: str) -> str | None:
    """The last value of a header, as text; strangers send UTF-8 where Latin-1 is due."""
    wanted = name.lower().encode()
    values = [value for key, value in response.headers if key.lower() == wanted]
    if not values:
        return None
    try:
        return values[-1].decode()
    except UnicodeDecodeError:
        return values[-1].decode("latin-1")


@cache
def _tls() -> ssl.SSLContext:
    """Certificates are verified; SSL_CERT_FILE and SSL_CERT_DIR name others than the usual roots."""
    return httpx.create_ssl_context()


class _Guarded(httpcore.NetworkBackend):
    """Connections to allowed addresses, of which no single wait outlives the deadline."""

    def __init__(self, allow_networks: tuple[str, ...], deadline: float, resolve: Resolver) -> None:
        self._allow_networks, self._deadline, self._resolve = allow_networks, deadline, resolve
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = allowed_addresses(host, port, self._allow_networks, self._resolve)
        except (OSError, UnicodeError) as error:  # UnicodeError: the system's resolver on a label of 64 characters
            raise httpcore.ConnectError(f"its name leads nowhere ({error})") from error
        failure: Exception = httpcore.ConnectTimeout("timed out")
        for address in addresses:
            try:
                stream = self._backend.connect_tcp(
                    address, port, _left(timeout, self._deadline), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Timed(stream, self._deadline)
        raise failure


class _Timed(httpcore.NetworkStream):
    """A connection of which no read or write waits beyond the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            secure = self._stream.start_tls(ssl_context, server_hostname, _left(timeout, self._deadline))
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise SourceRefused(
                    f"The certificate of {server_hostname} is not valid: {error.__cause__.verify_message}.",
                    hint="Mend it there, or name its authority in SSL_CERT_FILE",
                    host=server_hostname,
                ) from error
            raise
        return _Timed(secure, self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("timed out")
    return left if timeout is None else min(timeout, left)


@contextmanager
def _named_faults(host: str, deadline: float) -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        late = time.monotonic() >= deadline
        what = "did not finish within the time there is" if late else "does not answer"
        raise SourceUnavailable(f"{host} {what}.", host=host, overdue=late) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise SourceUnavailable(f"{host} cannot be reached: {error}", host=host) from error
