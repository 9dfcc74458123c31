"""Jobs in the words of the API: what answers and webhooks show of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OWN = frozenset(
    (
        "client_id",
        "rank_at",
        "lease_until",
        "not_before",
        "params",
        "max_attempts",
        "idempotency_key",
        "cache_key",
    )
)  # of the queue, and nobody else's business


def job_noun(values: Mapping[str, Any]) -> dict[str, Any]:
    """A job, given all that its row holds, as clients see it."""
    return {name: value for name, value in values.items() if name not in OWN}
