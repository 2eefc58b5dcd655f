"""A proxy that does to HTTP what networks and servers do on bad days.

It stands in front of a server, sees every request, and passes it on unchanged (the Host header too, which S3 signs) unless told of a fault:

    with FaultProxy(server.port) as proxy:
        proxy.next(SLOW_DOWN)  # the next request
        proxy.fault = Fault(delay=2)  # all that follow
        proxy.fault = lambda method, path: SILENT if method == "PUT" else PASS
        proxy.down()
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType

_BLOCK = 1 << 16  # bytes


@dataclass(frozen=True)
class Fault:
    """What happens to a request. Positions are bytes from the start of a body, or fractions of it when below 1."""

    refuse: bool = False  # closed at once
    status: int | None = None  # answered like this, not passed on
    code: str = "InternalError"  # S3's word for the status
    silent: bool = False  # taken, and never answered
    delay: float = 0.0  # seconds before it is passed on
    cut_request: float | None = None  # only so much is passed on, then both connections are closed
    flip_request: float | None = None  # a bit is flipped there
    lose_answer: bool = False  # carried out, and closed without a byte
    cut_answer: float | None = None  # closed after so much
    shorten_answer: float | None = None  # ends there as if that were all
    flip_answer: float | None = None


PASS = Fault()
REFUSE = Fault(refuse=True)
SILENT = Fault(silent=True)
SLOW_DOWN = Fault(status=503, code="SlowDown")
SERVER_ERROR = Fault(status=500)


class FaultProxy:
    """In front of a server on this machine. Any number of connections; each takes one request."""

    def __init__(self, target_port: int) -> None:
        self.fault: Fault | Callable[[str, str], Fault] = PASS
        self.faults: deque[Fault] = deque()  # for the next requests, before `fault`
        self.requests: list[tuple[str, str]] = []  # method and path with query, as they came in
        self.most_at_once = 0  # requests
        self.bytes_answered = 0  # of bodies
        self._at_once = 0
        self._target = target_port
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self.port = 0
        self.up()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, method: str = "", part_of_path: str = "") -> int:
        return sum(seen.startswith(method) and part_of_path in path for seen, path in list(self.requests))

    def next(self, *faults: Fault) -> None:
        """What happens to the next requests, and no others that were to come."""
        with self._lock:
            self.faults = deque(faults)

    def forget(self) -> None:
        """Count from here."""
        self.requests.clear()
        self.most_at_once = 0
        self.bytes_answered = 0

    def up(self) -> None:
        """Listen, on the same port as before."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Stop listening and cut what is open, as when a server is killed."""
        listener, self._listener = self._listener, None
        if listener:
            _close(listener)
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _close(connection)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.down()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._kept(client), suppress(OSError):
            head, rest = _head(client)
            if not head:
                return
            lines = head.split(b"\r\n")
            method, path = (word.decode("latin-1") for word in lines[0].split(b" ")[:2])
            with self._lock:
                self.requests.append((method, path))
                fault = self.faults.popleft() if self.faults else self.fault
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                self._handle(client, lines, rest, fault if isinstance(fault, Fault) else fault(method, path))
            finally:
                with self._lock:
                    self._at_once -= 1

    def _handle(self, client: socket.socket, lines: list[bytes], rest: bytes, fault: Fault) -> None:
        if fault.refuse:
            return
        length = _length(lines)
        waits = any(line.lower().startswith(b"expect:") for line in lines)
        if fault.status:
            if not waits:
                deque(_stream(client, rest, length), maxlen=0)
            client.sendall(_refusal(fault, with_body=not lines[0].startswith(b"HEAD")))
            return
        if waits:
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault.silent:
            deque(_stream(client, rest, length), maxlen=0)
            while client.recv(_BLOCK):  # until the client has had enough
                pass
            return
        time.sleep(fault.delay)
        server = socket.create_connection(("127.0.0.1", self._target))
        with self._kept(server):
            server.sendall(_passed_on(lines))
            passed_on = 0
            for block in _changed(_stream(client, rest, length), fault.flip_request, fault.cut_request, length):
                server.sendall(block)
                passed_on += len(block)
            if fault.cut_request is not None or passed_on < length:  # or the client is gone
                return
            head, rest = _head(server)
            lines = head.split(b"\r\n")
            length = _length(lines)
            if fault.lose_answer or not head:
                return
            if fault.shorten_answer is not None:
                shorter = _position(fault.shorten_answer, length)
                lines = [b"Content-Length: %d" % shorter if line.lower().startswith(b"content-length:") else line for line in lines]
            client.sendall(_passed_on(lines))
            end = fault.cut_answer if fault.cut_answer is not None else fault.shorten_answer
            for block in _changed(_stream(server, rest, None), fault.flip_answer, end, length):
                self.bytes_answered += len(block)
                client.sendall(block)

    @contextmanager
    def _kept(self, connection: socket.socket) -> Iterator[None]:
        """Known to `down` while it is open."""
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)
            _close(connection)


def _head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The first line and headers, and what has come after them already. Nothing, when the other side closes."""
    came = b""
    while b"\r\n\r\n" not in came:
        block = connection.recv(_BLOCK)
        if not block:
            return b"", b""
        came += block
    head, _, rest = came.partition(b"\r\n\r\n")
    return head, rest


def _passed_on(lines: list[bytes]) -> bytes:
    """The same head for a connection that takes one request. What is left out is not signed."""
    kept = [line for line in lines if not line.lower().startswith((b"connection:", b"keep-alive:", b"expect:"))]
    return b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n"


def _length(lines: list[bytes]) -> int:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _stream(connection: socket.socket, first: bytes, length: int | None) -> Iterator[bytes]:
    """A body of a length, or until the other side closes."""
    left = length
    if first:
        yield first
    if left is not None:
        left -= len(first)
    while left is None or left > 0:
        block = connection.recv(_BLOCK if left is None else min(_BLOCK, left))
        if not block:
            return
        if left is not None:
            left -= len(block)
        yield block


def _changed(body: Iterator[bytes], flip: float | None, end: float | None, length: int) -> Iterator[bytes]:
    flip_at = None if flip is None else _position(flip, length)
    end_at = None if end is None else _position(end, length)
    at = 0
    for block in body:
        if flip_at is not None and at <= flip_at < at + len(block):
            changed = bytearray(block)
            changed[flip_at - at] ^= 1
            block = bytes(changed)
        if end_at is not None and at + len(block) >= end_at:
            yield block[: end_at - at]
            return
        yield block
        at += len(block)


def _position(place: float, length: int) -> int:
    return int(place * length) if 0 < place < 1 else int(place)


def _refusal(fault: Fault, with_body: bool) -> bytes:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{fault.code}</Code><Message>not now</Message>'
        "<RequestId>fault</RequestId></Error>"
    ).encode()
    head = (
        f"HTTP/1.1 {fault.status} {fault.code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
