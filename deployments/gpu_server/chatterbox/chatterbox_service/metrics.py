"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatterbox_service.gpu import Gpu, gpus

TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300)  # seconds


class Metrics:
    def __init__(self, read_gpus: Callable[[], list[Gpu]] = gpus) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("chatterbox_requests", "Answers.", ["endpoint", "status"], registry=self._registry)
        self.generation = Histogram("chatterbox_generation_seconds", "Time of a generation.", buckets=_BUCKETS, registry=self._registry)
        self.speech = Counter("chatterbox_speech_seconds", "Speech made.", registry=self._registry)
        self.letters = Counter("chatterbox_characters", "Text spoken.", registry=self._registry)
        self.cut = Counter("chatterbox_cut_pieces", "Pieces that the model did not come to the end of.", registry=self._registry)
        self.voices = Counter("chatterbox_voices", "Voices used, by whether they were known.", ["known"], registry=self._registry)
        self._registry.register(_Gpus(read_gpus))

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A figure that is asked for whenever Prometheus asks."""
        Gauge(name, meaning, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class AnswerCount:
    """Middleware that counts answers by address and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what an exception will be answered with

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            # The address as it is declared: those asked for are without end.
            endpoint = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(endpoint=endpoint, status=str(status)).inc()


class _Gpus(Collector):
    """Nothing at all where there is no GPU."""

    def __init__(self, read: Callable[[], list[Gpu]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return []  # else registering would ask the driver

    def collect(self) -> Iterable[Metric]:
        found = self._read()
        figures: list[tuple[str, str, Callable[[Gpu], float | None]]] = [
            ("chatterbox_gpu_memory_used_bytes", "Of all processes.", lambda gpu: gpu.memory_used),
            ("chatterbox_gpu_memory_total_bytes", "That it has.", lambda gpu: gpu.memory_total),
            ("chatterbox_gpu_load_ratio", "Share of time that it computes.", lambda gpu: gpu.load),
            ("chatterbox_gpu_temperature_celsius", "Of the chip.", lambda gpu: gpu.temperature),
        ]
        for name, meaning, figure in figures:
            family = GaugeMetricFamily(name, meaning, labels=["gpu", "name"])
            values = [(gpu, figure(gpu)) for gpu in found]
            for gpu, value in values:
                if value is not None:
                    family.add_metric([str(gpu.index), gpu.name], value)
            if family.samples:
                yield family
