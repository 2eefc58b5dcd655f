"""Where lessons come from: names that are safe to write, and downloads from servers that behave badly."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.store import Store
from dubbing import sources
from dubbing.errors import BadInput, CoursedubError, DownloadFailed, NotMedia, SourceEmpty, SourceNotFound, SourceTooLarge
from dubbing.media import Limits
from dubbing.sources import fetch, file_stem, is_address, local_path, name_of

CONTENT = bytes(range(256)) * 4000  # 1 MB
Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, answered by what a test has laid ready: its n-th answer, and the last one from then on."""

    protocol_version = "HTTP/1.1"
    answers: list[Answer]
    asked: list[tuple[str, str | None]]  # path and range of each request

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Range"]))
        self.answers[min(len(self.asked), len(self.answers)) - 1](self)

    def send(self, status: int, content: bytes = b"", **headers: str) -> None:
        """An answer whose headers say what its content is, unless they are told otherwise; it ends the connection."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), "Connection": "close", **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):  # the other side has heard enough
            self.wfile.write(content)

    def begin_at(self) -> int:
        return int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))

    def log_message(self, *_: Any) -> None:
        pass


class Served:
    """A server on this machine, and what it was asked."""

    def __init__(self, port: int, asked: list[tuple[str, str | None]]) -> None:
        self.asked = asked
        self.root = f"http://127.0.0.1:{port}"
        self.lesson = f"{self.root}/course/lesson%201.mp4?token=secret"


@contextmanager
def serving(*answers: Answer) -> Iterator[Served]:
    asked: list[tuple[str, str | None]] = []
    handler = type("Handler", (Request,), {"answers": list(answers), "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Served(server.server_address[1], asked)
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts, and no proxy between this machine and itself."""
    monkeypatch.setattr(sources, "PAUSES", (0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


def ok(request: Request) -> None:
    request.send(200, CONTENT)


def rest(request: Request) -> None:
    """Goes on where it was asked to."""
    begin = request.begin_at()
    if not begin:
        return ok(request)
    request.send(206, CONTENT[begin:], Content_Range=f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")


def broken(request: Request) -> None:
    """Ends the connection in the middle."""
    request.send(200, CONTENT[:300_000], Content_Length=str(len(CONTENT)))


def status(code: int) -> Answer:
    return lambda request: request.send(code)


def hang_up(request: Request, last_words: bytes = b"") -> None:
    request.wfile.write(last_words)
    request.close_connection = True


def to(target: str) -> Answer:
    return lambda request: request.send(302, Location=target)


def failed(served: Served, folder: Path, kind: type[CoursedubError], limits: Limits | None = None) -> str:
    """The message: of that kind exactly, one line that names the file and keeps the address's secrets."""
    with pytest.raises(CoursedubError) as caught:
        fetch(served.lesson, folder, limits or Limits())
    assert type(caught.value) is kind, repr(caught.value)
    message = str(caught.value)
    assert message.startswith("lesson 1.mp4: ") and message.isprintable() and "secret" not in message
    return message


# --- names


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://example.org/a/lesson%201.mp4?token=x#t=3", "lesson 1.mp4"),
        ("https://example.org/a%2Fb.mp4", "b.mp4"),
        ("https://example.org/%D0%A3%D1%80%D0%BE%D0%BA.mp4", "Урок.mp4"),
        ("https://example.org/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("https://example.org/", "lesson"),
        ("https://example.org", "lesson"),
        ("https://example.org/course/", "course"),
        ("http://[::1/lesson.mp4", "lesson.mp4"),
        ("/data/lesson.mp4", "lesson.mp4"),
        ("a#b?c%20d.mp4", "a#b?c%20d.mp4"),
        ("", "lesson"),
        (os.fsdecode(b"/data/\xff.mp4"), "\N{REPLACEMENT CHARACTER}.mp4"),
    ],
)
def test_a_source_is_called_by_its_file_name(source: str, name: str) -> None:
    assert name_of(source) == name


@given(st.text())
def test_a_name_is_safe_to_write(name: str) -> None:
    stem = file_stem(name)
    assert stem and "/" not in stem and "\\" not in stem and stem.isprintable()
    assert stem[0] not in ".- " and stem[-1] not in ". "
    assert len(stem.encode()) <= 200
    assert file_stem(f"{stem}.mp4") == stem or "." in stem


@pytest.mark.parametrize("source", ["http://a/b.mp4", "HTTPS://a/b.mp4"])
def test_an_address_is_told_from_a_path(source: str) -> None:
    assert is_address(source)
    assert not any(is_address(path) for path in ("http:x.mp4", "ftp://a/b.mp4", "/http://a", "file:///etc/passwd", "x.mp4"))


def test_a_path_means_what_a_shell_would_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/lecturer")
    assert local_path("~/lesson.mp4") == Path("/home/lecturer/lesson.mp4")
    assert local_path("~nobody-of-that-name.mp4") == Path("~nobody-of-that-name.mp4")


def test_a_name_in_another_encoding_is_refused_by_name() -> None:
    """Records of a run are JSON: they couldn't hold it."""
    with pytest.raises(BadInput, match=r"^.\.mp4: the file's name is not valid UTF-8: rename it$"):
        local_path(os.fsdecode(b"/data/\xff.mp4"))


# --- downloads that succeed


def test_a_lesson_is_fetched(tmp_path: Path) -> None:
    shares: list[float] = []
    with serving(ok) as served:
        path = fetch(served.lesson, tmp_path, Limits(), shares.append)
    assert path.read_bytes() == CONTENT
    assert path.parent == tmp_path
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_redirects_are_followed(tmp_path: Path) -> None:
    with serving(to("/elsewhere/other.mp4"), to("/third"), ok) as served:
        assert fetch(served.lesson, tmp_path, Limits()).read_bytes() == CONTENT
        assert [path for path, _ in served.asked][1:] == ["/elsewhere/other.mp4", "/third"]


@pytest.mark.parametrize("code", [500, 502, 503, 429, 408])
def test_a_fault_that_passes_is_passed_over(code: int, tmp_path: Path) -> None:
    with serving(status(code), ok) as served:
        assert fetch(served.lesson, tmp_path, Limits()).read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(broken, rest) as served:
        assert fetch(served.lesson, tmp_path, Limits()).read_bytes() == CONTENT
        assert served.asked[1][1] == "bytes=300000-"


def test_a_server_that_knows_no_ranges_is_asked_for_all_again(tmp_path: Path) -> None:
    with serving(broken, ok) as served:
        assert fetch(served.lesson, tmp_path, Limits()).read_bytes() == CONTENT


def test_another_range_than_was_asked_for_is_not_used(tmp_path: Path) -> None:
    def wrong(request: Request) -> None:
        request.send(206, CONTENT[100:], Content_Range=f"bytes 100-{len(CONTENT) - 1}/{len(CONTENT)}")

    with serving(broken, wrong, rest) as served:
        assert fetch(served.lesson, tmp_path, Limits()).read_bytes() == CONTENT
        assert served.asked[2][1] is None


def test_a_file_that_became_shorter_meanwhile_is_fetched_anew(tmp_path: Path) -> None:
    with serving(broken, lambda request: request.send(416, Content_Range="bytes */1000"), ok) as served:
        assert fetch(served.lesson, tmp_path, Limits()).read_bytes() == CONTENT


def test_all_was_there_when_the_connection_broke(tmp_path: Path) -> None:
    def all_but_the_end(request: Request) -> None:
        request.send(200, CONTENT, Content_Length="", Transfer_Encoding="chunked")  # not chunks at all

    def chunk_without_end(request: Request) -> None:
        request.send(200, b"%x\r\n" % len(CONTENT) + CONTENT + b"\r\n", Content_Length="", Transfer_Encoding="chunked")

    satisfied = lambda request: request.send(416, Content_Range=f"bytes */{len(CONTENT)}")  # noqa: E731
    with serving(all_but_the_end, chunk_without_end, satisfied) as served:
        assert fetch(served.lesson, tmp_path, Limits()).read_bytes() == CONTENT


def test_no_announced_length_is_no_hindrance(tmp_path: Path) -> None:
    with serving(lambda request: request.send(200, CONTENT, Content_Length="")) as served:
        assert fetch(served.lesson, tmp_path, Limits()).read_bytes() == CONTENT


# --- and that don't


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_what_the_server_refuses_is_not_asked_for_again(code: int, tmp_path: Path) -> None:
    with serving(status(code)) as served:
        assert f"the server answered {code}" in failed(served, tmp_path, SourceNotFound)
        assert len(served.asked) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(503), "the server answered 503"),
        (broken, "peer closed connection"),
        (to("/round/and/round"), "redirects"),
        (lambda request: request.send(200, CONTENT, Content_Length="many"), "Content-Length"),
        (lambda request: hang_up(request, b"220 mail.example.org ESMTP\r\n"), ""),
        (lambda request: hang_up(request), ""),
    ],
    ids=["always failing", "always breaking", "a circle", "no number", "another protocol", "hanging up"],
)
def test_what_fails_again_and_again_is_given_up(answer: Answer, reason: str, tmp_path: Path) -> None:
    with serving(answer) as served:
        message = failed(served, tmp_path, DownloadFailed)
    assert "the download failed 3 times" in message and reason in message


def test_nobody_listening_is_a_failed_download(tmp_path: Path) -> None:
    with serving(ok) as served:
        pass
    failed(served, tmp_path, DownloadFailed)


def test_a_length_that_is_announced_too_great_is_refused_unread(tmp_path: Path) -> None:
    with serving(lambda request: request.send(200, b"x", Content_Length=str(10**12))) as served:
        assert "limit is 0.5 MB" in failed(served, tmp_path, SourceTooLarge, Limits(megabytes=0.5))
        assert len(served.asked) == 1


def test_a_length_that_turns_out_too_great_is_read_no_further(tmp_path: Path) -> None:
    sent = 0

    def endless(request: Request) -> None:
        nonlocal sent
        request.send(200, Content_Length="")
        try:
            while sent < 200_000_000:
                sent += request.connection.send(bytes(100_000))
        except OSError:
            pass

    with serving(endless) as served:
        assert "more than 0.5 MB" in failed(served, tmp_path, SourceTooLarge, Limits(megabytes=0.5))
    assert (tmp_path / "download").stat().st_size < 1_000_000
    assert sent < 50_000_000  # what the system's buffers take


def test_what_was_fetched_before_counts_towards_the_limit(tmp_path: Path) -> None:
    with serving(broken, rest) as served:
        failed(served, tmp_path, SourceTooLarge, Limits(megabytes=0.9))


@pytest.mark.parametrize("dribble", [False, True], ids=["nothing comes", "a byte now and then"])
def test_an_idle_server_is_given_up(dribble: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DOWNLOAD_IDLE", 0.2)
    over = threading.Event()
    given_up: list[bool] = []

    def idle(request: Request) -> None:
        request.send(200, b"x", Content_Length="1000000")
        while dribble and not over.wait(0.05):
            try:
                request.wfile.write(b"x")
            except OSError:
                break
        given_up.append(over.wait(60))  # false when the client waited until the server ended

    with serving(idle) as served:
        failed(served, tmp_path, DownloadFailed)
        over.set()
    assert all(given_up)


def test_an_empty_answer_is_an_empty_lesson(tmp_path: Path) -> None:
    with serving(status(200)) as served:
        assert "0 bytes" in failed(served, tmp_path, SourceEmpty)


@pytest.mark.parametrize("address", ["http://", "https:///lesson.mp4", "http://[::1/lesson.mp4", "http://" + "a" * 80 + ".org/x.mp4"])
def test_what_is_no_address_is_said_not_to_be(address: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        fetch(address, tmp_path, Limits())
    assert caught.value.exit_code == BadInput.exit_code
    assert address[:12] in str(caught.value)


def test_a_redirect_out_of_the_web_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with serving(to(f"file://{tmp_path}/secret")) as served, pytest.raises(BadInput):
        fetch(served.lesson, tmp_path, Limits())
    assert not (tmp_path / "download").exists()


# --- a file or an address, as a run finds it


def test_a_lesson_is_found_at_its_address(tmp_path: Path, store: Store) -> None:
    from flows.dub_video import find

    make = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=d=2", str(tmp_path / "lesson.m4a")]
    subprocess.run(make, check=True, timeout=1000)
    (tmp_path / "scratch").mkdir()
    content = (tmp_path / "lesson.m4a").read_bytes()
    with serving(lambda request: request.send(200, content)) as served:
        found = find(served.lesson, tmp_path / "scratch", Limits(), store)
    assert (found.name, found.size) == ("lesson 1.mp4", len(content))
    assert found.sha256 == find(str(tmp_path / "lesson.m4a"), tmp_path, Limits(), store).sha256


def test_a_web_page_in_place_of_a_lesson_is_not_media(tmp_path: Path, store: Store) -> None:
    from flows.dub_video import find

    page = b"<!DOCTYPE html><title>Log in</title>" * 100
    answer = lambda request: request.send(200, page, Content_Type="text/html")  # noqa: E731
    with serving(answer) as served, pytest.raises(NotMedia, match=r"^lesson 1\.mp4: not a media file"):
        find(served.lesson, tmp_path, Limits(), store)


def test_httpx_still_says_no_to_other_protocols() -> None:
    """What `fetch` relies on when it follows redirects."""
    with pytest.raises(httpx.UnsupportedProtocol):
        httpx.get("file:///etc/passwd")
