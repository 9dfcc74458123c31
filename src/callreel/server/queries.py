"""What stands behind the ? of a URL: only what its route knows, or a mistyped filter would be a list of everything."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant

from callreel.server.answers import is_openai
from callreel.server.forms import invalid


async def known_query(request: Request) -> None:
    """Raise InvalidInput for a parameter that the route does not have, naming the nearest that it has.

    Only for routes of our own: other systems' clients, and what asks after our health, send some that are theirs.
    """
    path = request.url.path
    if not request.query_params or not path.startswith("/v1/") or is_openai(path):
        return
    known = list(_parameters(request.scope["route"].dependant))
    if unknown := [name for name in request.query_params if name not in known]:
        raise invalid(({"loc": (name,), "type": "extra_forbidden", "msg": ""} for name in unknown), known)


def _parameters(of: Dependant) -> Iterator[str]:
    yield from (parameter.alias for parameter in of.query_params)
    for inner in of.dependencies:
        yield from _parameters(inner)
