"""The OpenAPI description, as it is: how one says who one is, and what a refusal looks like."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from callreel.server.answers import is_openai

TEXT = {"type": "string"}
ERROR = {
    "type": "object",
    "properties": {"code": TEXT, "message": TEXT, "hint": TEXT, "detail": {"type": "object"}},
    "required": ["code", "message", "hint", "detail"],
}
OPENAI_ERROR = {
    "type": "object",
    "properties": {"message": TEXT, "type": TEXT, "param": {"type": ["string", "null"]}, "code": TEXT},
    "required": ["message", "type", "param", "code"],
}


def describe(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, but for the refusals that it thinks we make."""
    described = FastAPI.openapi(app)
    if "securitySchemes" in described["components"]:
        return described  # FastAPI keeps the one it made
    components = described["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["schemas"] |= {"Error": ERROR, "OpenAIError": OPENAI_ERROR}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key"}}
    described["security"] = [{}, {"key": []}]
    for path, methods in described["paths"].items():
        name = "OpenAIError" if is_openai(path) else "Error"
        schema = {"type": "object", "properties": {"error": {"$ref": f"#/components/schemas/{name}"}}}
        refusal = {"description": "A refusal", "content": {"application/json": {"schema": schema}}}
        for route in methods.values():
            route["responses"].pop("422", None)
            route["responses"]["default"] = refusal
    return described
