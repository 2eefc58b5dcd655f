"""Turns at the Chatterbox service: one generation at a time, a bounded line, and no work for who has gone."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from chatterbox_service.errors import Busy
from chatterbox_service.queue import GenerationQueue

from tests.deployments.small_service import PATIENCE, Background, Running, fault_of, in_base64, recording, sha256, until

Serve = Callable[..., Running]
LONG = " ".join(["This is a sentence of some length, which is said in a lesson."] * 12)


class Clock:
    """Time that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def queue(max_waiting: int, clock: Callable[[], float] | None = None) -> GenerationQueue:
    executor = ThreadPoolExecutor(max_workers=1)
    return GenerationQueue(max_waiting, executor, clock or Clock())


async def started(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.005)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_they_have_their_turns_in_the_order_they_came() -> None:
    order: list[int] = []

    async def all_of_them() -> None:
        line = queue(10)
        await asyncio.gather(*(line.run(1, lambda stop, number=number: order.append(number)) for number in range(10)))
        assert line.waiting == 0 and line.running_for is None

    asyncio.run(all_of_them())
    assert order == list(range(10))


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_one_more_than_may_wait_is_sent_away_at_once(limit: int) -> None:
    may_end = threading.Event()

    async def too_many() -> None:
        line = queue(limit)
        working = [asyncio.ensure_future(line.run(1, lambda stop: may_end.wait(PATIENCE))) for _ in range(limit + 1)]
        await turns(3)
        assert line.waiting == limit
        with pytest.raises(Busy, match=f"at most {limit} may"):
            await line.run(1, lambda stop: None)
        may_end.set()
        assert all(await asyncio.gather(*working))
        assert await line.run(1, lambda stop: "free again") == "free again"

    asyncio.run(too_many())


def test_how_long_to_wait_is_told_by_how_long_it_took_before() -> None:
    async def measured() -> None:
        clock = Clock()
        line = queue(0, clock)

        def slow(stop: object) -> None:
            clock.now += 100.0

        for _ in range(40):
            await line.run(200, slow)  # half a second a letter
        begun, may_end = threading.Event(), threading.Event()

        def work(stop: object) -> None:
            begun.set()
            may_end.wait(PATIENCE)

        working = asyncio.ensure_future(line.run(100, work))
        await started(begun)
        assert line.retry_after() in (50, 51)
        clock.now += 30.0
        assert line.retry_after() in (20, 21)
        clock.now += 1000.0  # it takes longer than foreseen
        assert line.retry_after() == 1
        with pytest.raises(Busy) as caught:
            line.check_place()
        assert caught.value.headers() == {"Retry-After": "1"}
        may_end.set()
        await working
        assert line.retry_after() == 1

    asyncio.run(measured())


def test_who_goes_while_waiting_gives_the_place_up_and_is_not_worked_for() -> None:
    worked: list[str] = []
    may_end = threading.Event()

    async def goes() -> None:
        line = queue(1)
        first = asyncio.ensure_future(line.run(1, lambda stop: may_end.wait(PATIENCE)))
        await turns(3)
        second = asyncio.ensure_future(line.run(1, lambda stop: worked.append("second")))
        await turns(3)
        assert line.waiting == 1
        second.cancel()
        await asyncio.wait({second})
        assert line.waiting == 0
        third = asyncio.ensure_future(line.run(1, lambda stop: worked.append("third")))
        may_end.set()
        await asyncio.gather(first, third)

    asyncio.run(goes())
    assert worked == ["third"]


def test_who_goes_while_worked_for_stops_the_work_before_the_next_begins() -> None:
    order: list[str] = []

    async def goes() -> None:
        line = queue(1)
        begun = threading.Event()

        def work(stop: Callable[[], bool]) -> None:
            begun.set()
            while not stop():
                threading.Event().wait(0.005)
            order.append("stopped")

        first = asyncio.ensure_future(line.run(1, work))
        await started(begun)
        second = asyncio.ensure_future(line.run(1, lambda stop: order.append("next")))
        await turns(3)
        first.cancel()
        await asyncio.wait({first, second})
        assert first.cancelled()

    asyncio.run(goes())
    assert order == ["stopped", "next"]


def test_a_failure_frees_the_turn() -> None:
    def fail(stop: object) -> None:
        raise KeyError("inside")

    async def fails() -> None:
        line = queue(0)
        for _ in range(3):
            with pytest.raises(KeyError):
                await line.run(1, fail)
        assert line.running_for is None

    asyncio.run(fails())


def test_requests_at_once_are_worked_for_one_at_a_time(running: Running) -> None:
    with ExitStack() as stack:
        asked = [stack.enter_context(Background(lambda: running.generate(LONG))) for _ in range(6)]
    assert [one.result.status_code for one in asked] == [200] * 6
    assert running.model.most_at_once == 1


def test_beyond_the_limit_clients_are_told_when_to_come_again(serve: Serve) -> None:
    running = serve(max_waiting=2)
    running.model.open.clear()
    with ExitStack() as stack:
        asked = [stack.enter_context(Background(running.generate)) for _ in range(3)]
        until(lambda: running.client.get("/health").json()["queue"]["waiting"] == 2)
        figures = running.client.get("/metrics").text
        assert "chatterbox_queue_waiting 2.0" in figures and "chatterbox_generating 1.0" in figures
        for answer in (running.generate(), running.client.post("/api/tts/batch", json={"items": [{"text": "Hello."}]})):
            assert fault_of(answer) == (503, "busy", "busy: 2 requests wait already, at most 2 may")
            assert int(answer.headers["retry-after"]) >= 1
        running.model.open.set()
    assert [one.result.status_code for one in asked] == [200] * 3
    assert running.generate().status_code == 200


def hang_up(running: Running, body: bytes) -> socket.socket:
    """A client that asks, and will not wait for the answer."""
    host, port = running.address.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    head = f"POST /api/tts/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


def queue_of(running: Running) -> Any:
    return running.client.get("/health").json()["queue"]


def test_a_client_that_hangs_up_is_not_worked_for_any_longer(running: Running) -> None:
    running.model.open.clear()
    client = hang_up(running, b'{"text": "Nobody will hear this."}')
    running.model.wait_until_started()
    client.close()
    until(lambda: running.model.stopped == 1)
    until(lambda: queue_of(running)["generating_seconds"] is None)
    running.model.open.set()
    assert running.generate().status_code == 200
    assert 'status="499"' in running.client.get("/metrics").text


def test_a_client_that_hangs_up_while_it_waits_is_never_worked_for(running: Running) -> None:
    running.model.open.clear()
    with Background(lambda: running.generate("The first one.")) as first:
        running.model.wait_until_started()
        client = hang_up(running, b'{"text": "Nobody will hear this."}')
        until(lambda: queue_of(running)["waiting"] == 1)
        client.close()
        until(lambda: queue_of(running)["waiting"] == 0)
        running.model.open.set()
    assert first.result.status_code == 200
    assert [spoken.text for spoken in running.model.spoken] == ["The first one."]


class Counted:
    """A body sent in parts without saying how long it is, which tells how much of it was taken."""

    def __init__(self, first: bytes, count: int) -> None:
        self.first, self.count, self.taken = first, count, 0

    def __iter__(self) -> Any:
        yield self.first
        for _ in range(self.count):
            self.taken += 1
            yield b"x" * 2**16


@pytest.mark.parametrize(
    ("method", "path", "kind", "first"),
    [
        ("POST", "/api/tts/generate", "application/json", b'{"text": "'),
        ("POST", "/api/tts/batch", "application/json", b'{"items": ["'),
        ("PUT", f"/api/references/{'a' * 64}", "audio/wav", b"RIFF"),
        ("PUT", f"/api/references/{'a' * 64}", "application/json", b"RIFF"),
    ],
)
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused_while_it_comes_in(
    serve: Serve, method: str, path: str, kind: str, first: bytes, announced: bool
) -> None:
    running = serve(max_reference_bytes=200_000)
    body = Counted(first, count=16_000)  # 1 GB
    headers = {"content-type": kind} | ({"content-length": str(len(first) + body.count * 2**16)} if announced else {})
    answer = running.client.request(method, path, content=iter(body), headers=headers)
    assert fault_of(answer)[:2] == (413, "too_large")
    assert body.taken < body.count, "it was refused before all of it had come"
    assert running.generate().status_code == 200


def test_a_form_over_the_limit_is_refused_while_it_comes_in(serve: Serve) -> None:
    pytest.importorskip("python_multipart")
    running = serve(max_reference_bytes=200_000)
    head = b'--b\r\nContent-Disposition: form-data; name="reference_audio"; filename="a.wav"\r\n\r\n'
    body = Counted(head, count=16_000)
    answer = running.client.post("/api/tts/generate-file", content=iter(body), headers={"content-type": "multipart/form-data; boundary=b"})
    assert fault_of(answer)[:2] == (413, "too_large") and body.taken < body.count


def test_a_recording_just_within_the_limit_is_taken_however_it_is_sent(serve: Serve) -> None:
    file = recording(seconds=4.0)
    running = serve(max_reference_bytes=len(file))
    assert running.generate(reference_audio=in_base64(file)).status_code == 200
    assert running.client.put(f"/api/references/{sha256(file)}", content=file).status_code == 201
    longer = file + b"\0"
    assert fault_of(running.client.put(f"/api/references/{sha256(longer)}", content=longer))[:2] == (413, "too_large")
    assert fault_of(running.generate(reference_audio=in_base64(longer + b"\0\0")))[:2] == (413, "too_large")
