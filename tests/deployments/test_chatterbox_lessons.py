"""Whole lessons spoken through the real Chatterbox service, in a process of its own with a small model: what is cloned from what, and what
becomes of a lesson when the service is down, is killed, sends everybody away, hangs or answers nonsense, and when it is back."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import blocks.chatterbox
import flows.dub_video
import flows.plan_lesson
from blocks.chatterbox import Chatterbox
from blocks.profiles import Engines
from blocks.speech import SpeechEngine
from blocks.speech_chain import SpeechChain
from blocks.transcription import Recogniser
from dubbing.errors import ServiceDown
from dubbing.lesson import Word
from flows.dub_video import dub_video
from flows.plan_lesson import plan_lesson
from tests.deployments.small_service import until
from tests.lessons import make_lesson
from tests.stand_ins import StandInRecogniser, StandInSeparator, StandInSpeech, StandInTranslator

pytestmark = pytest.mark.usefixtures("prefect_server")

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"  # the port of the discard protocol, where nothing listens
DOWN = f"chatterbox: nobody answers at {NOBODY}"


class Service:
    """The process, and its address."""

    def __init__(self, seconds: float = 0.0) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "tests.deployments.small_model_service", str(port), str(seconds)]
        self.process = subprocess.Popen(command, cwd=ROOT)
        until(self.is_healthy)

    def is_healthy(self) -> bool:
        assert self.process.poll() is None
        try:
            return bool(httpx.get(f"{self.address}/health").json()["status"] == "healthy")
        except httpx.TransportError:
            return False

    def count(self, metric: str) -> int:
        """One of its figures."""
        lines = httpx.get(f"{self.address}/metrics").text.splitlines()
        return round(float(next((line.split()[-1] for line in lines if line.startswith(metric)), 0)))

    def generations(self) -> int:
        return self.count("chatterbox_generation_seconds_count")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def service(seconds: float = 0.0) -> Iterator[Service]:
    started = Service(seconds)
    try:
        yield started
    finally:
        started.kill()


@pytest.fixture(scope="module")
def served() -> Iterator[Service]:
    with service() as started:
        yield started


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks.chatterbox, "FIRST_PAUSE", 0.01)


class Desk:
    """A lesson, and a store."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.lesson = make_lesson(folder / "lesson.mp4", 12)
        self.store = folder / "store"
        self.recogniser: Recogniser = StandInRecogniser()

    def _with(self, speech: SpeechEngine) -> dict[str, Any]:
        self.use(Engines(StandInSeparator(), self.recogniser, StandInTranslator(), speech))
        return {"source": str(self.lesson), "store": str(self.store), "output": str(self.folder / "output")}

    def use(self, engines: Engines) -> None:
        """Whatever profile a run asks for, it is given these."""
        for module in (flows.dub_video, flows.plan_lesson):
            self._patch.setattr(module, "profile_named", lambda *_, **__: SimpleNamespace(engines=lambda: engines))

    def dub(self, speech: SpeechEngine) -> dict[str, dict[str, Any]]:
        """The run's stages by name."""
        result = dub_video(**self._with(speech))
        return {stage["name"]: stage for stage in result["stages"]}

    def plan(self, speech: SpeechEngine) -> dict[str, dict[str, Any]]:
        return {stage["name"]: stage for stage in plan_lesson(**self._with(speech))["stages"]}

    @property
    def lines(self) -> list[dict[str, Any]]:
        return list(json.loads((self.folder / "output" / "timeline.json").read_text())["lines"])

    @property
    def spoken_by(self) -> str:
        return str(json.loads((self.folder / "output" / "report.json").read_text())["engines"]["speech"])

    def engines(self) -> set[str]:
        return {line["engine"] for line in self.lines}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def chain(address: str, **settings: Any) -> SpeechChain:
    return SpeechChain(chain=[Chatterbox(address=address, **settings), StandInSpeech()])


def test_a_lesson_is_spoken_in_the_lecturers_voice_and_says_where_that_comes_from(desk: Desk, served: Service) -> None:
    before = served.count('chatterbox_voices_total{known="false"}')
    stages = desk.dub(Chatterbox(address=served.address))
    assert stages["speakers"]["state"] == stages["synthesize"]["state"] == "computed"
    assert {(line["engine"], line["voice"], line["cloned_from"]) for line in desk.lines} == {("chatterbox", "lecturer", "0:00-0:10")}
    assert desk.spoken_by == "chatterbox, voice lecturer, cloned from 0:00-0:10"
    assert served.count('chatterbox_voices_total{known="false"}') == before + 1, "one recording for the whole lesson"
    with (desk.folder / "output" / "lines.csv").open() as file:
        assert {(row["engine"], row["voice"], row["cloned_from"]) for row in csv.DictReader(file)} == {
            ("chatterbox", "lecturer", "0:00-0:10")
        }


class Telling(StandInRecogniser):
    """Hears two people: what is said before the sixth second, and after."""

    _block_type_slug = "telling-recogniser"

    def transcribe(self, recording: Path, language: str, progress: Callable[[float], None]) -> list[Word]:
        words = super().transcribe(recording, language, progress)
        return [word.model_copy(update={"speaker": "A" if word.start < 6 else "B"}) for word in words]


def test_each_speaker_is_cloned_from_what_that_speaker_said(desk: Desk, served: Service) -> None:
    desk.recogniser = Telling()
    desk.dub(chain(served.address))
    assert [(line["speaker"], line["cloned_from"]) for line in desk.lines] == [("A", "0:00-0:06")] * 3 + [("B", "0:06-0:12")] * 3
    assert desk.spoken_by == "chatterbox, voice lecturer, cloned from 0:00-0:06, 0:06-0:12"


def test_without_a_clone_each_speaker_has_a_voice_all_the_same(desk: Desk) -> None:
    desk.recogniser = Telling()
    desk.dub(StandInSpeech())
    assert [(line["speaker"], line["voice"]) for line in desk.lines] == [("A", "vera")] * 3 + [("B", "viktor")] * 3


def test_without_cloning_nobody_looks_for_recordings(desk: Desk, served: Service) -> None:
    stages = desk.dub(Chatterbox(address=served.address, clone=1))
    assert "speakers" not in stages
    assert {(line["voice"], line["cloned_from"]) for line in desk.lines} == {("default", None)}


def test_a_finished_lesson_needs_no_service(desk: Desk, served: Service) -> None:
    desk.dub(chain(served.address))
    again = desk.dub(chain(NOBODY))
    assert {stage["state"] for stage in again.values()} == {"cached"} and desk.engines() == {"chatterbox"}
    assert {stage["state"] for stage in desk.plan(chain(NOBODY)).values()} == {"cached"}


def test_when_it_is_down_the_next_engine_speaks_and_the_lesson_says_who_is_down(desk: Desk) -> None:
    desk.dub(chain(NOBODY))
    assert {(line["engine"], line["instead_of"]) for line in desk.lines} == {("stand-in", DOWN)}
    assert desk.spoken_by == f"stand-in, voice vera ({DOWN})"
    again = desk.dub(chain(NOBODY))
    assert {stage["state"] for stage in again.values()} == {"cached"}, "it was asked again, and nothing had changed"


def test_the_next_run_asks_it_again(desk: Desk, served: Service) -> None:
    desk.dub(chain(NOBODY))
    plan = desk.plan(chain(NOBODY))
    assert plan["synthesize"]["state"] == "to compute", "a plan asks nobody: it says what is wished"
    assert plan["synthesize"]["why"] == f"engine.settings.left_out {DOWN} → none"
    assert plan["synthesize"]["lines_to_compute"] == len(desk.lines)
    stages = desk.dub(chain(served.address))
    assert stages["synthesize"]["state"] == "computed" and desk.engines() == {"chatterbox"}
    assert {line["instead_of"] for line in desk.lines} == {None}
    assert {stage["state"] for stage in desk.dub(chain(NOBODY)).values()} == {"cached"}, "and what it spoke stays"


def test_killed_in_the_middle_it_leaves_the_lesson_to_one_voice_and_goes_on_when_it_is_back(desk: Desk) -> None:
    with service(seconds=0.3) as first:
        killing = threading.Thread(target=lambda: (until(lambda: first.generations() >= 2), first.kill()))
        killing.start()
        desk.dub(chain(first.address, at_once=1))
        killing.join()
    assert desk.engines() == {"stand-in"}, "no line of the speaker has the other voice"
    assert all(line["instead_of"].startswith("chatterbox: ") for line in desk.lines)
    with service() as second:
        stages = desk.dub(chain(second.address))
        assert desk.engines() == {"chatterbox"}
        assert stages["synthesize"]["lines_computed"] <= len(desk.lines) - 2
        assert second.generations() == stages["synthesize"]["lines_computed"], "what the first one spoke is not spoken again"


def test_with_nobody_to_take_its_place_the_run_ends_and_says_who_is_down(desk: Desk) -> None:
    with pytest.raises(ServiceDown, match=f"^{DOWN}$") as down:
        desk.dub(Chatterbox(address=NOBODY))
    assert down.value.exit_code == 34
    assert not (desk.folder / "output").exists()


Answer = tuple[int, dict[str, str], bytes]
BUSY = json.dumps({"error": {"code": "busy", "message": "busy: 16 requests wait already"}}).encode()


@contextmanager
def playing(answer: Answer | None) -> Iterator[str]:
    """A service that is healthy, and answers every line the same way, or never."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answered(200, {}, json.dumps({"status": "healthy", "fingerprint": {}}).encode())

        def do_PUT(self) -> None:
            self.answered(201, {}, json.dumps({"reference": "x"}).encode())

        def do_POST(self) -> None:
            if answer is None:
                ended.wait(600)
            else:
                self.answered(*answer)

        def answered(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    ended.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "settings", "why"),
    [
        ((503, {"Retry-After": "30"}, BUSY), {"patience": 0.5}, "ADDRESS: busy"),
        (None, {"timeout": 2.0}, "no answer from ADDRESS in 2 s"),
        ((200, {}, b"<html>It works!</html>"), {}, "an answer that makes no sense (JSONDecodeError)"),
        ((502, {}, b"bad gateway"), {}, "status 502"),
        ((404, {}, b"not found"), {}, "what answers at ADDRESS is not the service (status 404)"),
    ],
    ids=["sends everybody away", "hangs", "answers nonsense", "is behind a broken proxy", "is something else"],
)
def test_a_service_that_cannot_serve_is_as_good_as_none(desk: Desk, answer: Answer | None, settings: dict[str, Any], why: str) -> None:
    with playing(answer) as address:
        desk.dub(chain(address, **settings))
        assert {line["instead_of"] for line in desk.lines} == {f"chatterbox: {why.replace('ADDRESS', address)}"}
    assert desk.engines() == {"stand-in"}


def test_the_sample_lesson_comes_through(desk: Desk, sample: Path, served: Service) -> None:
    """Its own voice, separated and recognised for real, is what is cloned; of the translation only the count of lines matters here."""
    from blocks.separation import SEPARATORS
    from blocks.transcription import RECOGNISERS
    from dubbing.lesson import TranslatedLine

    class Numbering(StandInTranslator):
        def translate(self, window: Any, *_: Any, **__: Any) -> list[TranslatedLine]:
            return [TranslatedLine(id=line.id, text="Sunlight looks white, and it is made of colours.") for line in window.lines]

    separator, recogniser = SEPARATORS["spleeter"](), RECOGNISERS["faster-whisper"]()
    desk.use(Engines(separator, recogniser, Numbering(), chain(served.address)))
    dub_video(source=str(sample), store=str(desk.store), output=str(desk.folder / "output"))
    assert desk.engines() == {"chatterbox"} and len(desk.lines) >= 8
    [origin] = {line["cloned_from"] for line in desk.lines}
    start, end = (int(clock.split(":")[0]) * 60 + int(clock.split(":")[1]) for clock in origin.split("-"))
    assert 3 <= end - start <= 30 and end <= 54
