"""Deliver a webhook that the run it is of could not deliver: one try a run. One that fails leaves the next try to a run that starts later,
so that nobody waits in a pool's slot, and a worker that is started anew loses none.
"""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from blocks.webhook import Undelivered, open_webhook
from dubbing.webhooks import RETRIES, Event, Message
from tasks.announce import left_to_a_run


@flow(name="deliver-webhook")
def deliver_webhook(
    webhook: Annotated[str, Field(title="Webhook", description="A saved block's name, or an address.")],
    event: Annotated[Event, Field(title="Event", description="What it tells of.")],
    delivery: Annotated[str, Field(title="Delivery", description="Its id, the same at each try.")],
    body: Annotated[str, Field(title="Body", description="JSON, as it is sent.")],
    attempt: Annotated[int, Field(ge=1, title="Attempt", description="Which try this is.")] = 1,
) -> State[Any]:
    """One try. Fails when it was the last."""
    message = Message(event, delivery, body)
    try:
        open_webhook(webhook).send(message)
    except Undelivered as why:
        if attempt < len(RETRIES) and left_to_a_run(webhook, message, attempt + 1):
            get_run_logger().warning("%s; again in %d s", why, RETRIES[attempt])
            return Completed(message=f"Not delivered: {why}; again in {RETRIES[attempt]} s")
        raise
    return Completed(message=f"Delivered at try {attempt}")
