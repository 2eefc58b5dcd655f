"""The engine that speaks through the Chatterbox service, against the real service with a small model behind it, and against worse ones."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from chatterbox_service.errors import ModelFailed, NoSpeech, OutOfMemory

import blocks.answers
import blocks.chatterbox
from blocks.chatterbox import Chatterbox
from blocks.speech_engine import CLONE, Sample
from dubbing.errors import BadSetting, EngineRefused, ServiceDown
from tests.deployments.small_service import PATIENCE, Running, ToneModel, recording, sha256, until

TEXT = "This is a sentence of some length, which is said in a lesson."
NOBODY = "http://127.0.0.1:9"  # the port of the discard protocol, where nothing listens


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries."""
    monkeypatch.setattr(blocks.chatterbox, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(blocks.chatterbox, "HEALTH_PAUSE", 0.01)


@pytest.fixture
def running(running: Running) -> Running:
    """It speaks as fast as people do."""
    running.model.letter = 0.06
    return running


@pytest.fixture
def client(running: Running) -> Iterator[Chatterbox]:
    engine = Chatterbox(address=running.address, timeout=PATIENCE)
    yield engine
    engine.close()


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    path = tmp_path / "reference.wav"
    path.write_bytes(recording())
    return Sample(path, sha256(path.read_bytes()), "ru")


class TestSpeaking:
    def test_a_line_is_spoken_as_it_was_asked_for(self, running: Running, client: Chatterbox) -> None:
        speech = client.synthesize(TEXT, "en", "default", 5)
        assert speech.sample_rate == 24_000 and speech.samples.dtype == np.float32 and len(speech.samples) == 24 * 60 * len(TEXT)
        [spoken] = running.model.spoken
        assert spoken[:3] == (TEXT, "en", None) and spoken.manner == (0.5, 0.4, 0.8) and spoken.seed == 5
        assert speech.seed == 5 and speech.doubts == ()

    def test_its_settings_reach_the_model(self, running: Running) -> None:
        engine = Chatterbox(address=running.address, exaggeration=0.7, cfg_weight=0.3, temperature=1.1)
        engine.synthesize(TEXT, "ru", "default", 0)
        assert running.model.spoken[0].manner == (0.7, 0.3, 1.1)

    def test_the_same_seed_gives_the_same_samples(self, client: Chatterbox) -> None:
        first, again, other = (client.synthesize(TEXT, "en", "default", seed).samples for seed in (1, 1, 2))
        assert np.array_equal(first, again) and not np.array_equal(first, other)

    def test_a_voice_of_the_service_is_asked_for_by_name(self, serve: Callable[..., Running], tmp_path: Path) -> None:
        (tmp_path / "anna.wav").write_bytes(recording())
        running = serve(voices=tmp_path)
        engine = Chatterbox(address=running.address, voice="anna", clone=1)
        assert engine.voices("en") == ["anna", "default"]
        engine.synthesize(TEXT, "en", "anna", 0)
        assert running.model.spoken[0].voice == sha256(recording())
        with pytest.raises(BadSetting, match="voice 'bella': there is none of this name"):
            engine.synthesize(TEXT, "en", "bella", 0)

    def test_connections_are_used_again(self, client: Chatterbox) -> None:
        for seed in range(5):
            client.synthesize(TEXT, "en", "default", seed)
        assert len(client._http._transport._pool.connections) == 1

    @pytest.mark.parametrize("text", ["...", "😀"])
    def test_a_line_with_nothing_to_say_is_refused(self, client: Chatterbox, text: str) -> None:
        with pytest.raises(EngineRefused, match="chatterbox: text: nothing to say"):
            client.synthesize(text, "en", "default", 0)

    def test_a_line_that_is_too_long_is_refused_with_the_limit(self, client: Chatterbox) -> None:
        with pytest.raises(EngineRefused, match="1500 characters, at most 1024"):
            client.synthesize("a" * 1500, "en", "default", 0)


class TestCloning:
    def test_a_recording_is_sent_once_whatever_is_asked_at_once(self, running: Running, client: Chatterbox, sample: Sample) -> None:
        sent = count_puts(running)
        threads = [threading.Thread(target=client.synthesize_as, args=(TEXT, "en", sample, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(running.model.spoken) == 4 and {spoken.voice for spoken in running.model.spoken} == {sample.sha256}
        assert sent == [sample.sha256] and len(running.model.made) == 1

    def test_it_is_sent_again_when_the_service_has_forgotten_it(self, running: Running, client: Chatterbox, sample: Sample) -> None:
        client.synthesize_as(TEXT, "en", sample, 0)
        running.start_afresh()
        running.model.letter = 0.06
        client.synthesize_as(TEXT, "en", sample, 0)
        assert [spoken.voice for spoken in running.model.spoken] == [sample.sha256]

    def test_the_accent_is_left_behind_where_the_languages_differ(self, running: Running, client: Chatterbox, sample: Sample) -> None:
        client.synthesize_as(TEXT, "en-GB", sample, 0)
        client.synthesize_as(TEXT, "en", sample._replace(language="en-US"), 0)
        Chatterbox(address=running.address, cfg_weight_abroad=0.2).synthesize_as(TEXT, "en", sample, 0)
        assert [spoken.manner.cfg_weight for spoken in running.model.spoken] == [0.0, 0.4, 0.2]

    def test_a_recording_that_no_voice_can_be_cloned_from_is_refused(self, client: Chatterbox, tmp_path: Path) -> None:
        path = tmp_path / "short.wav"
        path.write_bytes(recording(seconds=1.0))
        with pytest.raises(EngineRefused, match=r"chatterbox: reference audio: 1\.0 s of speech, at least 3 s"):
            client.synthesize_as(TEXT, "en", Sample(path, sha256(path.read_bytes()), "ru"), 0)

    def test_whose_voices_it_takes_is_a_setting(self) -> None:
        assert [Chatterbox(clone=mode).clones() for mode in (1, 2, 3)] == ["nobody", "speakers", "lines"]
        assert CLONE in Chatterbox().voices("en") and CLONE not in Chatterbox(clone=1).voices("en")


class TestTakes:
    """What comes back is checked, and read again with another seed where it sounds wrong."""

    def test_a_reading_that_lost_words_is_read_again(self, running: Running, client: Chatterbox) -> None:
        running.model.length = lambda seed: 0.2 if seed < 10 else None
        speech = client.synthesize(TEXT, "en", "default", 5)
        assert [spoken.seed for spoken in running.model.spoken] == [5, 1_000_008]
        assert speech.doubts == () and speech.seed == 1_000_008

    def test_one_that_stays_wrong_is_kept_and_told(self, running: Running, client: Chatterbox) -> None:
        running.model.length = lambda seed: 39.0
        speech = client.synthesize(TEXT, "en", "default", 5)
        assert len(running.model.spoken) == 3 and speech.seed == 5
        assert speech.doubts == (f"39.0 s for {len(TEXT)} characters",)

    def test_the_reading_with_least_wrong_is_kept(self, running: Running, client: Chatterbox) -> None:
        running.model.level = lambda seed: 1.0 if seed == 5 else 0.5
        running.model.length = lambda seed: 39.0
        running.model.square = True
        speech = client.synthesize(TEXT, "en", "default", 5)
        assert len(speech.doubts) == 1 and speech.seed == 1_000_008

    def test_silence_is_no_speech(self, running: Running, client: Chatterbox) -> None:
        running.model.level = lambda seed: 0.0
        with pytest.raises(EngineRefused, match="chatterbox: the clip is silent, 3 times"):
            client.synthesize(TEXT, "en", "default", 0)
        assert len({spoken.seed for spoken in running.model.spoken}) == 3

    def test_no_sound_for_one_seed_may_be_sound_for_another(self, running: Running, client: Chatterbox) -> None:
        running.model.faults = {0: NoSpeech("the model gave no sound for this text; another seed may")}
        assert client.synthesize(TEXT, "en", "default", 0).seed == 1_000_003

    def test_speech_that_was_cut_off_is_read_again_and_told(self, running: Running, client: Chatterbox) -> None:
        running.model.reaches = 30
        speech = client.synthesize("This never ends, it goes on and on and on.", "en", "default", 0)
        assert "cut off at the 40 s that the model gives" in speech.doubts
        assert len({spoken.seed // 1_000_003 for spoken in running.model.spoken}) == 3

    def test_how_often_is_a_setting(self, running: Running) -> None:
        running.model.length = lambda seed: 39.0
        Chatterbox(address=running.address, takes=1).synthesize(TEXT, "en", "default", 0)
        assert len(running.model.spoken) == 1


class TestFaults:
    def test_nobody_there_is_told_with_the_address(self) -> None:
        with pytest.raises(ServiceDown, match=f"^chatterbox: nobody answers at {NOBODY}$"):
            Chatterbox(address=NOBODY).synthesize(TEXT, "en", "default", 0)

    def test_while_it_is_busy_it_is_waited_for(self, serve: Callable[..., Running]) -> None:
        running = serve(max_waiting=0)
        running.model.letter = 0.06
        running.model.open.clear()
        engine = Chatterbox(address=running.address, timeout=PATIENCE)
        first = threading.Thread(target=engine.synthesize, args=(TEXT, "en", "default", 0))
        first.start()
        running.model.wait_until_started()
        second = threading.Thread(target=engine.synthesize, args=(TEXT, "en", "default", 1))
        second.start()
        until(lambda: 'status="503"' in running.client.get("/metrics").text)
        running.model.open.set()
        first.join()
        second.join()
        assert [spoken.seed for spoken in running.model.spoken] == [0, 1]

    def test_patience_has_an_end(self, serve: Callable[..., Running]) -> None:
        running = serve(max_waiting=0)
        running.model.open.clear()
        first = threading.Thread(target=Chatterbox(address=running.address).synthesize, args=(TEXT, "en", "default", 0))
        first.start()
        running.model.wait_until_started()
        with pytest.raises(ServiceDown, match=f"^chatterbox: {running.address}: busy$"):
            Chatterbox(address=running.address, patience=0).synthesize(TEXT, "en", "default", 1)
        running.model.open.set()
        first.join()

    def test_a_model_that_is_loading_is_waited_for(self, serve: Callable[..., Running]) -> None:
        may_load = threading.Event()
        model = ToneModel()
        running = serve(model, loader=lambda: may_load.wait(PATIENCE) and model, ready=False)
        threading.Timer(0.3, may_load.set).start()
        assert len(Chatterbox(address=running.address).synthesize(TEXT, "en", "default", 0).samples)

    def test_one_that_failed_is_not_waited_for(self, running: Running) -> None:
        running.service.loaded.failure = "the GPU failed: no"
        with pytest.raises(ServiceDown, match="chatterbox: its model can't be used: the GPU failed: no"):
            Chatterbox(address=running.address).synthesize(TEXT, "en", "default", 0)

    @pytest.mark.parametrize("error", [ModelFailed("the GPU failed"), OutOfMemory("the GPU's memory is full", retry_after=10)])
    def test_a_device_that_fails_while_it_speaks_is_a_service_that_is_down(self, running: Running, error: Exception) -> None:
        running.model.fault = error
        with pytest.raises(ServiceDown, match="the GPU"):
            Chatterbox(address=running.address, patience=1).synthesize(TEXT, "en", "default", 0)

    def test_one_that_hangs_is_given_up(self, running: Running) -> None:
        running.model.open.clear()
        with pytest.raises(ServiceDown, match=f"no answer from {running.address} in 2 s"):
            Chatterbox(address=running.address, timeout=2).synthesize(TEXT, "en", "default", 0)
        until(lambda: running.model.stopped == 1)


class Played(NamedTuple):
    address: str
    asked: list[str]
    answers: list[tuple[int, dict[str, str], bytes]]  # the last is given again and again


@pytest.fixture
def played() -> Iterator[Played]:
    """A server that answers what it is told to, after a health that is good."""
    asked: list[str] = []
    answers: list[tuple[int, dict[str, str], bytes]] = []
    leaving = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200, {}, json.dumps({"status": "healthy", "fingerprint": {"model": "played"}}).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.path)
            self.answer(*(answers.pop(0) if len(answers) > 1 else answers[0]))

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            if status == 0:
                self.connection.shutdown(socket.SHUT_RDWR)  # in the middle of it all
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for part in [body] if "X-Slow" not in headers else (body[n : n + 1] for n in range(len(body))):
                self.wfile.write(part)
                if leaving.wait(float(headers.get("X-Slow", 0))):
                    break

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Played(f"http://127.0.0.1:{server.server_port}", asked, answers)
    leaving.set()
    server.shutdown()
    server.server_close()


def spoken(seconds: float = 4.0, sample_rate: int = 24_000, told_rate: int = 24_000, level: float = 0.3, channels: int = 1) -> bytes:
    file = io.BytesIO()
    sound = level * np.sin(np.arange(round(seconds * sample_rate)) / 5)
    soundfile.write(file, np.repeat(sound[:, None], channels, axis=1), sample_rate, format="WAV", subtype="PCM_16")
    return json.dumps({"audio_base64": base64.b64encode(file.getvalue()).decode(), "sample_rate": told_rate}).encode()


GOOD = (200, {}, spoken())
NONSENSE = {
    "no JSON": b"<html>hello</html>",
    "another JSON": b"[1, 2]",
    "brackets without end": b"[" * 200_000,
    "null": b"null",
    "no sound": json.dumps({"audio_base64": "aGVsbG8=", "sample_rate": 24_000}).encode(),
    "no base64": json.dumps({"audio_base64": "***", "sample_rate": 24_000}).encode(),
    "no samples": spoken(seconds=0.0),
    "another rate": spoken(told_rate=48_000),
    "two channels": spoken(channels=2),
}


class TestWorseServices:
    @pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
    def test_nonsense_is_asked_again_and_then_given_up(self, played: Played, body: bytes) -> None:
        played.answers[:] = [(200, {}, body), GOOD]
        assert len(Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0).samples) == 96_000
        played.answers[:] = [(200, {}, body)]
        played.asked.clear()
        with pytest.raises(ServiceDown, match="an answer that makes no sense"):
            Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0)
        assert len(played.asked) == blocks.chatterbox.TRIES

    def test_an_answer_that_drips_is_given_up_in_time(self, played: Played) -> None:
        played.answers[:] = [(200, {"X-Slow": "0.05"}, spoken())]  # hours of it
        with pytest.raises(ServiceDown, match=f"no answer from {played.address} in 2 s"):
            Chatterbox(address=played.address, timeout=2).synthesize(TEXT, "en", "default", 0)
        assert len(played.asked) == 1

    def test_an_answer_that_is_too_large_is_nonsense(self, played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(blocks.answers, "LARGEST", 100_000)
        played.answers[:] = [GOOD]
        with pytest.raises(ServiceDown, match="an answer that makes no sense"):
            Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0)

    def test_bytes_that_are_not_packed_as_they_say_are_nonsense_too(self, played: Played) -> None:
        played.answers[:] = [(200, {"Content-Encoding": "gzip"}, b"certainly not compressed")]
        with pytest.raises(ServiceDown, match="an answer that makes no sense"):
            Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0)

    @pytest.mark.parametrize(
        "body",
        [b"[" * 200_000, b"null", b'{"error": [1]}', b'{"error": {"code": [], "message": {}}}'],
        ids=["brackets", "null", "a list", "no code"],
    )
    def test_a_refusal_that_makes_no_sense_is_a_service_that_is_down(self, played: Played, body: bytes) -> None:
        for status in (400, 500):
            played.answers[:] = [(status, {}, body)]
            with pytest.raises((ServiceDown, EngineRefused), match=r"^chatterbox: "):
                Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0)

    @pytest.mark.parametrize("fault", [(500, {}, b"oops"), (502, {}, b""), (0, {}, b"")], ids=["500", "502", "broken off"])
    def test_a_fault_that_passes_costs_a_pause(self, played: Played, fault: tuple[int, dict[str, str], bytes]) -> None:
        played.answers[:] = [fault, GOOD]
        assert len(Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0).samples) == 96_000

    def test_retry_after_is_kept_to(self, played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr(blocks.chatterbox.time, "sleep", slept.append)
        busy = json.dumps({"error": {"code": "busy", "message": "busy: 3 requests wait already"}}).encode()
        played.answers[:] = [(503, {"Retry-After": "7"}, busy), GOOD]
        Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0)
        assert len(slept) == 1 and 7 <= slept[0] <= 9

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize("after", [None, "0", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "-1"])
    def test_one_that_does_not_say_when_is_asked_ever_less_often(
        self, played: Played, monkeypatch: pytest.MonkeyPatch, after: str | None, status: int
    ) -> None:
        slept: list[float] = []
        monkeypatch.setattr(blocks.chatterbox.time, "sleep", slept.append)
        monkeypatch.setattr(blocks.chatterbox, "FIRST_PAUSE", 0.5)
        away = (status, {} if after is None else {"Retry-After": after}, b"<h1>Service Unavailable</h1>")
        played.answers[:] = [*[away] * 8, GOOD]
        Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0)
        assert len(slept) == 8 and slept[0] >= 0.3 and slept[-1] >= 6

    def test_it_may_say_when_by_a_date(self, played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr(blocks.chatterbox.time, "sleep", slept.append)
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=200), usegmt=True)
        played.answers[:] = [(503, {"Retry-After": date}, b""), GOOD]
        Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0)
        assert len(slept) == 1 and 100 <= slept[0] <= 250
        played.answers[:] = [(503, {"Retry-After": date}, b"")]
        with pytest.raises(ServiceDown, match="status 503"):
            Chatterbox(address=played.address, patience=60).synthesize(TEXT, "en", "default", 0)

    def test_another_server_at_the_address_is_not_taken_for_it(self, played: Played) -> None:
        played.answers[:] = [(404, {}, b"<h1>Not found</h1>")]
        with pytest.raises(ServiceDown, match="is not the service"):
            Chatterbox(address=played.address).synthesize(TEXT, "en", "default", 0)


class TestRevision:
    def test_clips_say_which_model_spoke_them(self, running: Running, client: Chatterbox) -> None:
        speech = client.synthesize(TEXT, "en", "default", 0)
        assert len(speech.revision) == 12 and speech.revision == client.current_revision()
        running.model.version = "2"
        assert Chatterbox(address=running.address).current_revision() != speech.revision

    def test_another_model_than_the_one_wanted_is_refused(self, running: Running, client: Chatterbox) -> None:
        revision = client.current_revision()
        Chatterbox(address=running.address, revision=revision).synthesize(TEXT, "en", "default", 0)
        with pytest.raises(BadSetting, match=f"revision 0123 is asked for, and the service's model is {revision}"):
            Chatterbox(address=running.address, revision="0123").synthesize(TEXT, "en", "default", 0)


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:8001", "ftp://host", "http://", "http://host:99999", "http://host/?x=1", "http://anna:hunter2@host"]
)
def test_an_address_that_is_none_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="address") as refused:
        Chatterbox(address=address)
    if address:
        monkeypatch.setenv("COURSEDUB_CHATTERBOX", address)
        with pytest.raises(ValueError, match="COURSEDUB_CHATTERBOX"):
            Chatterbox()
    assert "hunter2" not in str(refused.value)


def test_the_environment_may_say_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSEDUB_CHATTERBOX", "http://gpu.example:8001/")
    assert Chatterbox().address == "http://gpu.example:8001"


def count_puts(running: Running) -> list[str]:
    """References that the service is sent from now on."""
    sent: list[str] = []
    add = running.service.references.add
    running.service.references.add = lambda data: sent.append(sha256(data)) or add(data)
    return sent
