"""Where events are told to (`dubbing.webhooks`): an address of the platform, each message signed with a secret that both know."""

from __future__ import annotations

import os
import time
from typing import Any

import httpx
from prefect.blocks.core import Block
from pydantic import Field, SecretStr, ValidationError, field_validator

from dubbing.errors import BadSetting, PassingFault
from dubbing.services import plain_address
from dubbing.signing import SIGNATURE, TIMESTAMP, sign
from dubbing.webhooks import EVENTS, Event, Message

TIMEOUT = 5.0  # seconds
SHORTEST_SECRET = 16  # characters


class Undelivered(PassingFault):
    """Nobody took it; somebody may the next time."""


class Webhook(Block):
    """An address that is told of lessons: an operator's own choice, which is why it may lie in the same network."""

    _block_type_name = "Coursedub webhook"
    _block_type_slug = "coursedub-webhook"

    url: str = Field(description="http or https address that takes a POST. Redirects are not followed.")
    secret: SecretStr = Field(
        default_factory=lambda: SecretStr(os.environ.get("COURSEDUB_WEBHOOK_SECRET", "")),
        validate_default=True,
        description="Signs each message, at least 16 characters; the receiver has it too. COURSEDUB_WEBHOOK_SECRET when empty.",
    )
    events: list[Event] = Field(default=list(EVENTS), description="Those that are told.")
    timeout: float = Field(default=TIMEOUT, gt=0, le=60, description="Seconds in which it is taken, or counts as not taken.")

    @field_validator("url")
    @classmethod
    def _checked_url(cls, url: str) -> str:
        return plain_address("url", url)

    @field_validator("secret")
    @classmethod
    def _checked_secret(cls, secret: SecretStr) -> SecretStr:
        secret = secret if secret.get_secret_value() else SecretStr(os.environ.get("COURSEDUB_WEBHOOK_SECRET", ""))
        if len(secret.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(f"a secret of at least {SHORTEST_SECRET} characters is needed (or COURSEDUB_WEBHOOK_SECRET)")
        return secret

    def send(self, message: Message) -> None:
        """One try.

        Raises:
            Undelivered: it was not taken: no answer in time, or none that is a success.
        """
        body, now = message.body.encode(), int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "coursedub",
            "X-Coursedub-Event": message.event,
            "X-Coursedub-Delivery": message.delivery,
            TIMESTAMP: str(now),
            SIGNATURE: sign(self.secret.get_secret_value(), now, body),
        }
        try:
            # What is answered beside the status is read by nobody.
            with httpx.stream("POST", self.url, content=body, headers=headers, timeout=self.timeout, follow_redirects=False) as response:
                status = response.status_code
        except httpx.TimeoutException:
            raise Undelivered(f"webhook {self.url}: no answer within {self.timeout:g} s") from None
        except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError) as error:
            raise Undelivered(f"webhook {self.url}: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise Undelivered(f"webhook {self.url}: it answers {status}")


def open_webhook(reference: str) -> Webhook:
    """A webhook as a block saved in Prefect (`coursedub-webhook/NAME` or its name), or the one at this address, with the secret of the
    environment.

    Raises:
        BadSetting
    """
    try:
        if "://" in reference:
            return Webhook(url=reference)
        loaded: Any = Webhook.load(reference.removeprefix(f"{Webhook.get_block_type_slug()}/"))
    except ValidationError as error:
        raise BadSetting(f"webhook: {error.errors(include_input=False)[0]['msg']}") from None
    except ValueError as error:
        raise BadSetting(f"webhook {reference}: it is no address, and Prefect has no such block") from error
    assert isinstance(loaded, Webhook)
    return loaded
