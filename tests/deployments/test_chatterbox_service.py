"""The Chatterbox service over HTTP: what it answers, what it refuses, and how."""

from __future__ import annotations

import importlib.util
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from chatterbox_service.errors import ModelFailed, NoSpeech, OutOfMemory

from tests.deployments.small_service import (
    LETTER,
    PATIENCE,
    Background,
    Running,
    ToneModel,
    fault_of,
    in_base64,
    recording,
    sha256,
    sound_of,
    until,
)

Serve = Callable[..., Running]

TEXT = "This is a sentence of some length, which is said in a lesson."
JSON = {"content-type": "application/json"}

forms = pytest.mark.skipif(
    importlib.util.find_spec("python_multipart") is None, reason="python-multipart, which reads forms, is not installed"
)


class TestHealth:
    def test_it_says_what_the_client_was_promised(self, running: Running) -> None:
        answer = running.client.get("/health")
        body = answer.json()
        assert answer.status_code == 200
        assert body["status"] == "healthy" and body["model_loaded"] is True
        assert body["device"] == "cpu" and body["vram_used_gb"] == 1.25
        assert body["queue"] == {"waiting": 0, "limit": 16, "generating_seconds": None}

    def test_it_names_all_that_shapes_the_speech(self, running: Running) -> None:
        fingerprint = running.client.get("/health").json()["fingerprint"]
        assert fingerprint["model"] == "tones"
        assert {"service", "piece_letters", "pause_seconds"} <= set(fingerprint)

    def test_while_the_model_loads_it_says_so_and_speech_has_to_wait(self, serve: Serve) -> None:
        may_load = threading.Event()
        model = ToneModel()

        def load() -> ToneModel:
            may_load.wait(PATIENCE)
            return model

        running = serve(model, loader=load, ready=False)
        health = running.client.get("/health").json()
        assert health["status"] == "loading" and health["model_loaded"] is False and health["device"] is None
        for answer in (running.generate(), running.client.post("/api/tts/batch", json={"items": [{"text": TEXT}]})):
            assert fault_of(answer)[:2] == (503, "model_loading")
            assert int(answer.headers["retry-after"]) >= 1
        may_load.set()
        until(lambda: running.client.get("/health").json()["status"] == "healthy")
        assert running.generate().status_code == 200

    @pytest.mark.parametrize(
        "error", [ModelFailed("weights: no ve.pt in the folder"), OSError("disk\nfailed"), ImportError(), SystemExit("no")]
    )
    def test_a_model_that_could_not_be_loaded_is_named_with_the_reason(self, serve: Serve, error: BaseException) -> None:
        def load() -> ToneModel:
            raise error

        running = serve(loader=load)
        health = running.client.get("/health").json()
        assert health["status"] == "failed" and health["model_loaded"] is False
        assert health["reason"] and "\n" not in health["reason"]
        answer = running.generate()
        assert fault_of(answer)[:2] == (503, "model_failed") and health["reason"] in fault_of(answer)[2]
        assert "retry-after" not in answer.headers, "waiting would not help"

    def test_it_answers_while_the_model_works(self, running: Running) -> None:
        running.model.open.clear()
        with Background(running.generate) as speaking:
            running.model.wait_until_started()
            health = running.client.get("/health").json()
            assert health["status"] == "healthy" and health["queue"]["generating_seconds"] >= 0
            running.model.open.set()
        assert speaking.result.status_code == 200


class TestGenerate:
    def test_it_answers_sound_in_base64(self, running: Running) -> None:
        answer = running.generate(TEXT, language="en", exaggeration=0.5, cfg_weight=0.4)
        assert answer.status_code == 200
        samples, sample_rate = sound_of(answer)
        body = answer.json()
        assert sample_rate == body["sample_rate"] == 24_000
        assert body["duration_seconds"] == pytest.approx(len(samples) / 24_000, abs=0.001) == pytest.approx(len(TEXT) * LETTER, abs=0.001)
        assert body["cut"] is False and body["warnings"] == [] and body["pieces"] == 1

    def test_only_the_text_has_to_be_given(self, running: Running) -> None:
        assert running.generate(TEXT).status_code == 200
        [spoken] = running.model.spoken
        assert spoken.language == "en" and spoken.manner == (0.5, 0.4, 0.8)

    def test_every_setting_reaches_the_model(self, running: Running) -> None:
        running.generate(TEXT, language="ru-RU", exaggeration=0.7, cfg_weight=0.0, temperature=1.1, seed=5)
        assert running.model.spoken[0][1:] == ("ru", None, (0.7, 0.0, 1.1), 5)

    def test_the_seed_it_chose_gives_the_same_speech_again(self, running: Running) -> None:
        first = running.generate().json()
        again = running.generate(seed=first["seed"]).json()
        assert again == first
        assert running.generate(seed=(first["seed"] + 1) % 2**32).json()["audio_base64"] != first["audio_base64"]

    def test_speech_cut_off_by_the_model_is_told_not_kept_quiet(self, running: Running) -> None:
        running.model.reaches = 10
        body = running.generate("This never ends.").json()
        assert body["cut"] is True
        assert body["warnings"] == ["cut off where the model's limit was reached: 'This never ends.'"]

    def test_1024_characters_are_spoken_and_one_more_is_refused(self, running: Running) -> None:
        text = (TEXT + " ") * 20
        assert running.generate(text[:1023] + ".").status_code == 200
        assert fault_of(running.generate(text[:1024] + ".")) == (422, "text_too_long", "text: 1025 characters, at most 1024")

    @pytest.mark.parametrize("text", ["", " ", "\n\t", "...", "😀🎉", "¿?", "\0\0", "\u200b"])
    def test_text_with_nothing_to_say_is_refused(self, running: Running, text: str) -> None:
        assert fault_of(running.generate(text))[:2] == (422, "empty_text")
        assert not running.model.spoken

    @pytest.mark.parametrize(
        ("sent", "named"),
        [
            ({}, "text"),
            ({"text": 5}, "text"),
            ({"text": None}, "text"),
            ({"text": TEXT, "temperature": 0}, "temperature"),
            ({"text": TEXT, "temperature": "warm"}, "temperature"),
            ({"text": TEXT, "temperature": 9}, "temperature"),
            ({"text": TEXT, "exaggeration": -0.1}, "exaggeration"),
            ({"text": TEXT, "cfg_weight": 1.5}, "cfg_weight"),
            ({"text": TEXT, "seed": -1}, "seed"),
            ({"text": TEXT, "seed": 2**32}, "seed"),
            ({"text": TEXT, "seed": 0.5}, "seed"),
            ({"text": TEXT, "temprature": 0.5}, "temprature"),
            ({"text": TEXT, "voice": "a", "reference": "b"}, "only one of"),
            ({"text": TEXT, "voice": ["a"]}, "voice"),
            ([], "valid dictionary"),
            (None, ""),
        ],
    )
    def test_a_wrong_request_is_refused_by_the_name_of_its_fault(self, running: Running, sent: Any, named: str) -> None:
        status, code, message = fault_of(running.client.post("/api/tts/generate", json=sent))
        assert (status, code) == (422, "invalid_request") and named in message
        assert not running.model.spoken

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"nan"', '"inf"'])
    @pytest.mark.parametrize("setting", ["temperature", "exaggeration", "cfg_weight"])
    def test_what_is_no_number_is_refused(self, running: Running, setting: str, number: str) -> None:
        answer = running.client.post("/api/tts/generate", content=f'{{"text": "Hello", "{setting}": {number}}}', headers=JSON)
        assert fault_of(answer)[:2] == (422, "invalid_request") and setting in fault_of(answer)[2]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff\xfe",
            b'{"text": "\\ud800"}',
            b'{"text": "a", "seed": ' + b"9" * 5000 + b"}",
            b"[" * 100_000,
            b'{"text": "Hello" "x"}',
        ],
        ids=["empty", "cut", "no UTF-8", "half a character", "endless number", "endlessly deep", "no comma"],
    )
    def test_a_body_that_can_t_be_read_is_a_fault_of_the_client(self, running: Running, body: bytes) -> None:
        answer = running.client.post("/api/tts/generate", content=body, headers=JSON)
        status, code, message = fault_of(answer)
        assert status in (400, 422) and code in ("invalid_request", "empty_text") and len(message) < 300

    def test_a_fault_repeats_little_of_what_was_sent(self, running: Running) -> None:
        long = {"text": TEXT, **{"x" * 3000 + str(n): "y" * 3000 for n in range(50)}}
        assert len(fault_of(running.client.post("/api/tts/generate", json=long))[2]) < 500

    def test_an_unknown_language_is_refused_with_those_there_are(self, running: Running) -> None:
        assert fault_of(running.generate(TEXT, language="tlh")) == (
            422,
            "unsupported_language",
            "language 'tlh': the model speaks en, no, ru, zh",
        )

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (NoSpeech("no sound"), (500, "no_speech", "no sound")),
            (OutOfMemory("the GPU's memory is full", retry_after=10), (503, "out_of_memory", "the GPU's memory is full")),
            (RuntimeError("secret\nof the inside"), (500, "internal_error", "internal error")),
        ],
    )
    def test_a_failed_generation_is_answered_and_the_next_one_works(
        self, running: Running, error: Exception, expected: tuple[int, str, str]
    ) -> None:
        running.model.fault = error
        assert fault_of(running.generate()) == expected
        running.model.fault = None
        assert running.generate().status_code == 200
        assert running.client.get("/health").json()["status"] == "healthy"

    def test_a_device_that_failed_is_told_by_health_and_ends_the_service(self, running: Running) -> None:
        ended = threading.Event()
        running.service.on_broken = ended.set
        running.model.fault = ModelFailed("the GPU failed: CUDA error")
        assert fault_of(running.generate())[:2] == (503, "model_failed")
        running.model.fault = None
        health = running.client.get("/health").json()
        assert (health["status"], health["reason"]) == ("failed", "the GPU failed: CUDA error")
        assert fault_of(running.generate())[:2] == (503, "model_failed")
        assert ended.is_set() and running.service.broken
        running.service.on_broken = lambda: None

    @pytest.mark.parametrize(
        ("method", "path", "expected"), [("GET", "/nowhere", (404, "not_found")), ("GET", "/api/tts/generate", (405, "method_not_allowed"))]
    )
    def test_an_unknown_address_is_answered_in_the_same_form(
        self, running: Running, method: str, path: str, expected: tuple[int, str]
    ) -> None:
        assert fault_of(running.client.request(method, path))[:2] == expected


class TestVoices:
    def test_a_reference_in_base64_gives_the_voice(self, running: Running) -> None:
        file = recording()
        answer = running.generate(TEXT, reference_audio=in_base64(file))
        assert answer.json()["reference"] == running.model.spoken[0].voice == sha256(file)

    def test_a_reference_sent_once_can_be_named_ever_after(self, running: Running) -> None:
        file = recording(seconds=7.0)
        name = sha256(file)
        sent = running.client.put(f"/api/references/{name}", content=file)
        assert sent.status_code == 201 and sent.json() == {"reference": name, "duration_seconds": 7.0}
        for _ in range(3):
            assert running.generate(TEXT, reference=name).json()["reference"] == name
        assert running.model.made == [(name, 0.5)]

    def test_one_that_came_with_a_line_can_be_named_too(self, running: Running) -> None:
        file = recording()
        running.generate(TEXT, reference_audio=in_base64(file))
        assert running.generate(TEXT, reference=sha256(file)).status_code == 200

    def test_one_that_was_forgotten_is_asked_for_again(self, serve: Serve) -> None:
        running = serve(remembered_references=1)
        first, second = recording(pitch=100), recording(pitch=120)
        for file in (first, second):
            running.client.put(f"/api/references/{sha256(file)}", content=file)
        assert fault_of(running.generate(TEXT, reference=sha256(first))) == (
            404,
            "unknown_reference",
            "unknown reference: please send it again",
        )
        assert running.generate(TEXT, reference=sha256(second)).status_code == 200

    def test_a_reference_is_kept_under_no_name_but_its_own(self, running: Running) -> None:
        file = recording()
        answer = running.client.put(f"/api/references/{sha256(b'another')}", content=file)
        assert fault_of(answer)[:2] == (422, "invalid_reference")
        assert fault_of(running.generate(TEXT, reference=sha256(b"another")))[:2] == (404, "unknown_reference")

    @pytest.mark.parametrize("name", ["x", "A" * 64, "%2e%2e", "a" * 63 + "%00"])
    def test_a_name_that_is_no_digest_is_refused(self, running: Running, name: str) -> None:
        assert fault_of(running.client.put(f"/api/references/{name}", content=recording()))[:2] == (422, "invalid_reference")
        assert fault_of(running.generate(TEXT, reference=name))[:2] == (422, "invalid_reference")

    @pytest.mark.parametrize(
        ("audio", "named"),
        [
            ("not base64!", "not base64"),
            ("", "empty"),
            (in_base64(b"RIFFxxxxWAVEfmt "), "damaged"),
            (in_base64(recording(seconds=1.0)), "at least 3 s"),
            (in_base64(recording(seconds=40.0)), "at most 30 s"),
            (in_base64(recording(level=0.0)), "silent"),
        ],
        ids=["base64", "empty", "damaged", "short", "long", "silent"],
    )
    def test_a_reference_no_voice_can_be_cloned_from_is_refused(self, running: Running, audio: str, named: str) -> None:
        status, code, message = fault_of(running.generate(TEXT, reference_audio=audio))
        assert (status, code) == (422, "invalid_reference") and named in message
        assert not running.model.spoken and not running.model.made

    def test_a_voice_of_the_folder_can_be_asked_for_by_name(self, serve: Serve, tmp_path: Path) -> None:
        (tmp_path / "anna.wav").write_bytes(recording())
        (tmp_path / "bad.wav").write_bytes(b"no sound")
        running = serve(voices=tmp_path)
        listed = running.client.get("/api/voices").json()
        assert listed["own_voice"] is True
        assert [voice["name"] for voice in listed["voices"]] == ["anna", "bad"] and "damaged" in listed["voices"][1]["error"]
        assert running.generate(TEXT, voice="anna").json()["reference"] == sha256(recording())
        assert fault_of(running.generate(TEXT, voice="bad"))[:2] == (422, "invalid_reference")

    @pytest.mark.parametrize("name", ["", "nobody", "../anna", "..", "/etc/passwd", "anna\0", "anna.wav", "аnna", "%2e%2e/anna"])
    def test_a_name_leads_to_no_other_file(self, serve: Serve, tmp_path: Path, name: str) -> None:
        (tmp_path / "voices").mkdir()
        (tmp_path / "anna.wav").write_bytes(recording())
        running = serve(voices=tmp_path / "voices")
        status, code, message = fault_of(running.generate(TEXT, voice=name))
        assert (status, code) == (404, "unknown_voice") and str(tmp_path) not in message

    def test_without_a_voice_of_its_own_a_line_needs_one(self, serve: Serve) -> None:
        model = ToneModel()
        model.has_own_voice = False
        running = serve(model)
        assert running.client.get("/api/voices").json()["own_voice"] is False
        assert fault_of(running.generate())[:2] == (422, "invalid_reference")
        assert running.generate(reference_audio=in_base64(recording())).status_code == 200

    def test_languages_are_listed_with_what_they_lack(self, running: Running) -> None:
        listed = {language["code"]: language for language in running.client.get("/api/languages").json()["languages"]}
        assert set(listed) == {"en", "no", "ru", "zh"}
        assert listed["ru"] == {"code": "ru", "name": "Russian", "note": "stress is guessed"}


@forms
class TestFiles:
    def test_a_form_is_answered_with_a_sound_file(self, running: Running) -> None:
        file = recording()
        answer = running.client.post(
            "/api/tts/generate-file",
            data={"text": TEXT, "language": "ru", "exaggeration": "0.6", "cfg_weight": "0.3", "seed": "9"},
            files={"reference_audio": ("anna.wav", file, "audio/wav")},
        )
        assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
        samples, sample_rate = soundfile.read(io.BytesIO(answer.content))
        assert sample_rate == 24_000 and len(samples) == round(len(TEXT) * LETTER * 24_000)
        assert running.model.spoken[0] == (TEXT, "ru", sha256(file), (0.6, 0.3, 0.8), 9)
        assert answer.headers["x-seed"] == "9" and answer.headers["x-cut"] == "false" and answer.headers["x-reference"] == sha256(file)

    @pytest.mark.parametrize("multipart", [True, False])
    def test_the_file_may_be_left_out(self, running: Running, multipart: bool) -> None:
        sent = {"files": {"text": (None, TEXT), "voice": (None, "")}} if multipart else {"data": {"text": TEXT, "language": ""}}
        assert running.client.post("/api/tts/generate-file", **sent).status_code == 200

    def test_it_is_the_same_speech_as_in_base64(self, running: Running) -> None:
        file = running.client.post("/api/tts/generate-file", data={"text": TEXT, "seed": "3"}).content
        samples, _ = sound_of(running.generate(TEXT, seed=3))
        assert np.array_equal(soundfile.read(io.BytesIO(file), dtype="float32")[0], samples)

    def test_a_cut_is_told_in_the_headers_whatever_the_script(self, running: Running) -> None:
        running.model.reaches = 2
        answer = running.client.post("/api/tts/generate-file", data={"text": "Привет, мир", "language": "ru"})
        assert answer.headers["x-cut"] == "true"
        assert json.loads(answer.headers["x-warnings"]) == ["cut off where the model's limit was reached: 'Привет, мир'"]

    @pytest.mark.parametrize(
        ("sent", "expected", "named"),
        [
            ({"data": {}}, (422, "invalid_request"), "text"),
            ({"data": {"text": ""}}, (422, "empty_text"), "text"),
            ({"data": {"text": TEXT, "temperature": "nan"}}, (422, "invalid_request"), "temperature"),
            ({"data": {"text": TEXT, "speed": "2"}}, (422, "invalid_request"), "speed"),
            ({"data": {"text": TEXT, "reference_audio": "abc"}}, (422, "invalid_request"), "a file is expected"),
            ({"data": {"text": TEXT}, "files": {"other": b"x"}}, (422, "invalid_request"), "no file is expected"),
            ({"data": {"text": TEXT}, "files": {"reference_audio": ("../../x\0.wav", b"x")}}, (422, "invalid_reference"), "damaged"),
            ({"data": {"text": TEXT}, "files": {"reference_audio": ("a.wav", b"")}}, (422, "invalid_reference"), "empty"),
            (
                {"data": {"text": TEXT, "voice": "x"}, "files": {"reference_audio": ("a.wav", recording())}},
                (422, "invalid_request"),
                "only one",
            ),
            ({"json": {"text": TEXT}}, (422, "invalid_request"), "text"),
            ({"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=y"}}, (400, "invalid_request"), ""),
            ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, (400, "invalid_request"), "boundary"),
            ({"files": [("reference_audio", ("a.wav", recording()))] * 2}, (400, "invalid_request"), "files"),
        ],
    )
    def test_a_wrong_form_is_refused(self, running: Running, sent: dict[str, Any], expected: tuple[int, str], named: str) -> None:
        status, code, message = fault_of(running.client.post("/api/tts/generate-file", **sent))
        assert (status, code) == expected and named in message


class TestBatch:
    def test_lines_are_answered_in_order_each_with_its_sound_or_its_fault(self, running: Running) -> None:
        items = [
            {"text": TEXT, "seed": 1},
            {"text": ""},
            {"text": "Second.", "language": "xx"},
            {"text": "Third.", "seed": 1},
            5,
            {"txt": "a"},
        ]
        answer = running.client.post("/api/tts/batch", json={"items": items})
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert [result.get("error", {}).get("code") for result in results] == [
            *(None, "empty_text", "unsupported_language", None),
            *("invalid_request", "invalid_request"),
        ]
        assert results[0] == running.generate(TEXT, seed=1).json()
        assert results[3]["duration_seconds"] == pytest.approx(6 * LETTER)

    def test_a_line_the_model_can_t_say_spoils_no_other(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        speak, model = ToneModel.speak, running.model

        def moody(text: str, *rest: Any) -> Any:
            if "bad" in text:
                raise RuntimeError("inside")
            return speak(model, text, *rest)

        monkeypatch.setattr(model, "speak", moody)
        results = running.client.post("/api/tts/batch", json={"items": [{"text": t} for t in ("One.", "A bad one.", "Three.")]}).json()[
            "results"
        ]
        assert [next(iter(result)) for result in results] == ["audio_base64", "error", "audio_base64"]
        assert results[1]["error"] == {"code": "internal_error", "message": "internal error"}

    def test_lines_of_one_voice_need_its_conditionals_once(self, running: Running) -> None:
        file = recording()
        running.client.put(f"/api/references/{sha256(file)}", content=file)
        running.client.post("/api/tts/batch", json={"items": [{"text": TEXT, "reference": sha256(file)}] * 5})
        assert len(running.model.made) == 1 and len(running.model.spoken) == 5

    @pytest.mark.parametrize(
        "body", [{}, {"items": []}, {"items": "abc"}, {"items": [{"text": "a"}] * 33}, {"items": [{"text": "a"}], "x": 1}]
    )
    def test_a_wrong_batch_is_refused_whole(self, running: Running, body: Any) -> None:
        assert fault_of(running.client.post("/api/tts/batch", json=body))[:2] == (422, "invalid_request")

    def test_a_batch_of_faults_alone_needs_no_turn(self, running: Running) -> None:
        running.model.open.clear()
        with Background(running.generate):
            running.model.wait_until_started()
            answer = running.client.post("/api/tts/batch", json={"items": [{"text": "!"}]})
            assert answer.json()["results"][0]["error"]["code"] == "empty_text"
            running.model.open.set()
