"""/v1/webhooks: where a client is told of what happened."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from callreel.jobs import webhooks
from callreel.net import check_url
from callreel.server.nouns import page_noun
from callreel.server.services import Client, House
from callreel.storage.pages import DEFAULT_LIMIT, MAX_LIMIT

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


class WebhookRequest(BaseModel):
    """Where to send, and what."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=2000, description="Gets a POST for each event; see docs/webhooks.md")
    events: list[Literal["job"]] = Field(
        ["job"], min_length=1, description="`job`: one has succeeded, failed, been cancelled"
    )


class WebhookChange(BaseModel):
    """What of a webhook may change."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["active", "paused"] = Field(description="What happens while it is paused is sent afterwards")


@router.post("", status_code=201)
async def create(house: House, client: Client, asked: WebhookRequest) -> dict[str, Any]:
    """Be told of events. `secret` signs what is sent, and is shown in this answer only."""
    check_url(asked.url, house.settings.sources.allow_networks)
    made = await house.database.write(
        lambda conn: webhooks.create(conn, client_id=client, url=asked.url, events=asked.events)
    )
    return _noun(made) | {"secret": made.secret}


@router.get("")
async def list_webhooks(
    house: House,
    client: Client,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> dict[str, Any]:
    """Your webhooks, newest first."""
    page = await house.database.read(lambda conn: webhooks.list_page(conn, client, cursor, limit))
    return page_noun(page, [_noun(hook) for hook in page.data])


@router.get("/{webhook_id}")
async def get(house: House, client: Client, webhook_id: str) -> dict[str, Any]:
    """One webhook."""
    return _noun(await house.database.read(lambda conn: webhooks.get(conn, webhook_id, client)))


@router.patch("/{webhook_id}")
async def change(house: House, client: Client, webhook_id: str, asked: WebhookChange) -> dict[str, Any]:
    """Pause a webhook, or go on with it."""
    return _noun(await house.database.write(lambda conn: webhooks.set_state(conn, webhook_id, client, asked.state)))


@router.delete("/{webhook_id}", status_code=204)
async def remove(house: House, client: Client, webhook_id: str) -> None:
    """Delete a webhook, and what was not sent yet."""
    await house.database.write(lambda conn: webhooks.remove(conn, webhook_id, client))


@router.get("/{webhook_id}/deliveries")
async def deliveries(
    house: House,
    client: Client,
    webhook_id: str,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> dict[str, Any]:
    """What was sent and what still will be, newest first, with the receiver's last answer."""
    page = await house.database.read(lambda conn: webhooks.deliveries(conn, webhook_id, client, cursor, limit))
    return page_noun(page, [_delivery_noun(delivery) for delivery in page.data])


def _noun(hook: webhooks.Webhook) -> dict[str, Any]:
    noun: dict[str, Any] = msgspec.to_builtins(hook)
    del noun["client_id"], noun["secret"]
    return noun


def _delivery_noun(delivery: webhooks.Delivery) -> dict[str, Any]:
    """`at` is when it ended, None until then."""
    noun: dict[str, Any] = msgspec.to_builtins(delivery)
    del noun["next_at"]
    noun["at"] = noun.pop("ended_at")
    return noun
