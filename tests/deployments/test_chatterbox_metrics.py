"""What the Chatterbox service tells Prometheus, with a GPU and without one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from chatterbox_service.gpu import Gpu, gpus
from chatterbox_service.settings import Settings
from prometheus_client.parser import text_string_to_metric_families

from tests.deployments.small_service import LETTER, Running

TEXT = "This is a sentence of some length, which is said in a lesson."


def figures(running: Running) -> dict[tuple[str, ...], float]:
    """By name and labels."""
    answer = running.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(answer.text))
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_without_a_gpu_nothing_is_said_of_one(running: Running) -> None:
    assert not [key for key in figures(running) if "gpu" in key[0]]
    assert running.client.get("/health").json()["gpus"] == []


def test_the_gpu_s_memory_load_and_temperature_are_reported(serve: Callable[..., Running]) -> None:
    cards = [Gpu(0, "A card", 3 * 2**30, 24 * 2**30, 0.75, 61.0), Gpu(1, "A silent card", 5, 10, None, None)]
    running = serve(read_gpus=lambda: cards)
    seen = figures(running)
    assert seen["chatterbox_gpu_memory_used_bytes", "0", "A card"] == 3 * 2**30
    assert seen["chatterbox_gpu_memory_total_bytes", "1", "A silent card"] == 10
    assert seen["chatterbox_gpu_load_ratio", "0", "A card"] == 0.75
    assert seen["chatterbox_gpu_temperature_celsius", "0", "A card"] == 61.0
    assert ("chatterbox_gpu_load_ratio", "1", "A silent card") not in seen
    assert running.client.get("/health").json()["gpus"][0]["temperature"] == 61.0


def test_what_was_made_is_counted(serve: Callable[..., Running]) -> None:
    running = serve()
    for text in (TEXT, TEXT, ""):
        running.generate(text)
    running.client.get("/nowhere/1")
    running.client.get("/nowhere/2")
    seen = figures(running)
    assert seen["chatterbox_requests_total", "/api/tts/generate", "200"] == 2
    assert seen["chatterbox_requests_total", "/api/tts/generate", "422"] == 1
    assert seen["chatterbox_requests_total", "other", "404"] == 2, "addresses that don't exist are one"
    assert seen["chatterbox_characters_total",] == 2 * len(TEXT)
    assert seen["chatterbox_speech_seconds_total",] == pytest.approx(2 * len(TEXT) * LETTER, abs=0.01)
    assert seen["chatterbox_generation_seconds_count",] == 2
    assert seen["chatterbox_model_loaded",] == 1 and seen["chatterbox_queue_limit",] == 16 and seen["chatterbox_queue_waiting",] == 0


class NVMLError(Exception):
    pass


def driver(**more: object) -> SimpleNamespace:
    """A stand-in for NVIDIA's driver, with one card that tells no load."""

    def unsupported(handle: object) -> None:
        raise NVMLError

    facts = {
        "NVMLError": NVMLError,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: b"A card",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=1, total=2),
        "nvmlDeviceGetUtilizationRates": unsupported,
        "nvmlDeviceGetTemperature": lambda handle, kind: 50,
    }
    return SimpleNamespace(**(facts | more))


def fail(*arguments: object) -> None:
    raise NVMLError("driver not loaded")


def test_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    assert gpus() == [Gpu(0, "A card", 1, 2, None, 50.0)]


@pytest.mark.parametrize("there", [None, driver(nvmlInit=fail), driver(nvmlDeviceGetCount=fail), driver(nvmlDeviceGetMemoryInfo=fail)])
def test_a_driver_that_does_not_answer_is_no_gpu(there: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", there)
    assert gpus() == []


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (Settings().port, Settings().host, Settings().device) == (8001, "127.0.0.1", "auto")
    for name, value in {"PORT": "9000", "DEVICE": "cpu", "WEIGHTS": str(tmp_path), "MAX_WAITING": "0"}.items():
        monkeypatch.setenv(f"CHATTERBOX_{name}", value)
    settings = Settings()
    assert (settings.port, settings.device, settings.weights, settings.max_waiting) == (9000, "cpu", tmp_path, 0)
    for name, value in {"DEVICE": "tpu", "PORT": "70000", "MAX_SPEECH_TOKENS": "2000"}.items():
        with monkeypatch.context() as wrong:
            wrong.setenv(f"CHATTERBOX_{name}", value)
            with pytest.raises(ValueError, match=name.lower()):
                Settings()
