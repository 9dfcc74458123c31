"""Post to a stranger's URL: what a webhook does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from callreel.net.addresses import Resolver, check_url, system_resolver
from callreel.net.connection import exchange

KEPT_BYTES = 1000  # of an answer's body, to show why it was refused


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver said; `text` is the beginning of its body."""

    status: int
    text: str

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    allow_networks: Sequence[str] = (),
    resolve: Resolver = system_resolver,
) -> Answer:
    """Post `body`; a redirect is not followed. `timeout_s` is for everything together.

    Raises InvalidInput for the URL, ForbiddenAddress where it leads inside, SourceRefused for a certificate that is not
    valid, SourceUnavailable (transient) when nobody answers in time.
    """
    with exchange(
        "POST",
        check_url(url, allow_networks),
        list(headers.items()),
        body,
        allow_networks=allow_networks,
        deadline=time.monotonic() + timeout_s,
        resolve=resolve,
        read_s=timeout_s,
    ) as response:
        kept = b""
        for piece in response.iter_stream():
            kept += piece
            if len(kept) >= KEPT_BYTES:
                break
        return Answer(response.status, kept[:KEPT_BYTES].decode(errors="replace"))
