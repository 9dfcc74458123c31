"""/docs: the API described on one page that loads nothing from elsewhere: it is read where there is no network too."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(tags=["server"])

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de;text-transform:capitalize}
summary{cursor:pointer;padding:.35rem 0}code{font:.9em ui-monospace,monospace}
.method{display:inline-block;width:4.5rem;font-weight:600}.said{color:#57606a;margin-left:.5rem}
table{border-collapse:collapse;margin:.5rem 0 1rem;width:100%}td,th{border:1px solid #d0d7de;padding:.25rem .5rem;
text-align:left;vertical-align:top}th{background:#f6f8fa}.whole{white-space:pre-wrap}
@media (prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th{background:#161b22}
td,th,h2{border-color:#30363d}.said{color:#9198a1}a{color:#58a6ff}}
"""
INTRODUCTION = (
    "<p>A key goes as <code>Authorization: Bearer KEY</code>; on this machine none is needed until one is made. "
    "Errors are <code>{&quot;error&quot;: {code, message, hint, detail}}</code>, under OpenAI's paths in OpenAI's "
    'shape. For programs: <a href="openapi.json">openapi.json</a>.</p>'
)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Every route with what it takes."""
    return HTMLResponse(page(request.app.openapi()))


def page(described: dict[str, Any]) -> str:
    """The OpenAPI description `described` as a page, a section a tag."""
    sections: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            tag = (route.get("tags") or ["server"])[0]
            sections.setdefault(tag, []).append(_route(method, path, route, described))
    info = described["info"]
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(routes)}" for tag, routes in sections.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('summary', ''))}</p>"
        f"{INTRODUCTION}{body}</html>"
    )


def _route(method: str, path: str, route: dict[str, Any], described: dict[str, Any]) -> str:
    said = route.get("description", "")
    first, _, rest = said.partition("\n\n")
    rows = "".join(_row(*cells) for cells in asked_of(route, described))
    table = f"<table><tr><th>name<th>in<th>type<th>what it is{rows}</table>" if rows else ""
    return (
        f'<details><summary><span class="method">{method.upper()}</span><code>{escape(path)}</code>'
        f'<span class="said">{escape(first)}</span></summary>'
        f'<p class="whole">{escape(rest)}</p>{table}</details>'
    )


def _row(name: str, where: str, schema: dict[str, Any], required: bool) -> str:
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    shown = " or ".join(" | ".join(map(str, one["enum"])) if "enum" in one else one.get("type", "") for one in kinds)
    default = schema.get("default")
    notes = [schema.get("description", ""), "required" if required else "", f"default {default}" if default else ""]
    cells = (f"<code>{escape(name)}</code>", where, escape(shown), escape("; ".join(note for note in notes if note)))
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)


def asked_of(route: dict[str, Any], described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """What a route of `described` takes: (name, where, schema, whether it is required), its body's fields last."""
    for asked in route.get("parameters", ()):
        yield asked["name"], asked["in"], asked["schema"], asked.get("required", False)
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        if "$ref" in schema:
            schema = described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
        for name, field in schema.get("properties", {}).items():
            yield name, kind.rsplit("/", 1)[-1], field, name in schema.get("required", ())
