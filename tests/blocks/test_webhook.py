"""One try of a webhook: what counts as taken, and where a message doesn't go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr, ValidationError

from blocks.webhook import Undelivered, Webhook, open_webhook
from dubbing.errors import BadSetting
from dubbing.webhooks import Message
from tests.receiver import SECRET, Receiver

MESSAGE = Message("video_completed", "0b6e2c54-6c1e-4b53-9d0c-5b0c6f6f0001", '{"job_id": "Урок"}')


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


@pytest.fixture
def platform(receiver: Receiver) -> Receiver:
    receiver.start_afresh()
    return receiver


def webhook(platform: Receiver, **settings: object) -> Webhook:
    return Webhook(**{"url": platform.url, "secret": SecretStr(SECRET), **settings})


def test_a_message_comes_signed_and_whole(platform: Receiver) -> None:
    webhook(platform).send(MESSAGE)
    (come,) = platform.taken
    assert (come.event, come.delivery, come.body) == ("video_completed", MESSAGE.delivery, {"job_id": "Урок"})


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410, 429, 500, 503])
def test_whatever_is_no_success_is_undelivered_and_nobody_is_sent_elsewhere(platform: Receiver, status: int) -> None:
    platform.always = status
    with pytest.raises(Undelivered, match=f"it answers {status}"):
        webhook(platform).send(MESSAGE)
    assert platform.paths == ["/webhooks/coursedub"]


def test_no_answer_in_time_is_undelivered(platform: Receiver) -> None:
    platform.always = "silence"
    with pytest.raises(Undelivered, match=r"no answer within 0\.2 s"):
        webhook(platform, timeout=0.2).send(MESSAGE)


def test_nobody_there_is_undelivered(platform: Receiver) -> None:
    with pytest.raises(Undelivered, match="ConnectError"):
        webhook(platform, url="http://127.0.0.1:9/").send(MESSAGE)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "file:///etc/passwd"},
        {"url": "ftp://host/"},
        {"url": "http://name:password@host/"},
        {"url": "http://host/?token=x"},
        {"url": ""},
        {"secret": SecretStr("short")},
        {"events": ["anything"]},
        {"timeout": 0},
    ],
    ids=str,
)
def test_a_setting_that_is_wrong_is_refused(platform: Receiver, settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        webhook(platform, **settings)


def test_an_address_alone_needs_a_secret_of_the_environment(platform: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COURSEDUB_WEBHOOK_SECRET", raising=False)
    with pytest.raises(BadSetting, match="a secret of at least 16 characters is needed"):
        open_webhook(platform.url)
    monkeypatch.setenv("COURSEDUB_WEBHOOK_SECRET", SECRET)
    open_webhook(platform.url).send(MESSAGE)
    assert len(platform.taken) == 1 and SECRET not in repr(open_webhook(platform.url))
