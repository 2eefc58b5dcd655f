"""The service's addresses."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from chatterbox_service import text as texts
from chatterbox_service.errors import BadReference, BadRequest, BodyTooLarge, ModelFailed, ServiceError
from chatterbox_service.gpu import Gpu, gpus
from chatterbox_service.limits import BodyLimit
from chatterbox_service.loading import LoadedModel
from chatterbox_service.metrics import TYPE, AnswerCount, Metrics
from chatterbox_service.model import SpeechModel, Stopped
from chatterbox_service.queue import GenerationQueue
from chatterbox_service.references import Reference, References, digest_of, is_digest
from chatterbox_service.requests import BatchRequest, GenerateRequest, faults, from_form, parsed
from chatterbox_service.settings import PAUSE, PIECE_TEXT, Settings
from chatterbox_service.speaking import VERSION, Speech, Utterance, VoiceCache, known_language, speak
from chatterbox_service.voices import Voices

T = TypeVar("T")

_QUOTED = 60  # characters of a text in a warning
_CLIENT_GONE = 499  # as other servers count it; nobody is there to read it
_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: BodyTooLarge.code}

_log = logging.getLogger(__name__)


class ClientGone(Exception):
    """Who asked has gone away."""


class Service:
    """What the addresses share."""

    def __init__(self, settings: Settings, loader: Callable[[], SpeechModel], read_gpus: Callable[[], list[Gpu]]) -> None:
        self.settings, self.read_gpus = settings, read_gpus
        self.loaded = LoadedModel(loader)
        self.broken = False  # the model spoke, and can't any more: only a new process can
        self.on_broken: Callable[[], None] = lambda: None
        self.metrics = Metrics(read_gpus)
        self.queue = GenerationQueue(settings.max_waiting, self.loaded.executor)
        self.references = References(settings.remembered_references, settings.max_reference_bytes)
        self.voices = Voices(settings.voices, self.references)
        self.known_voices = VoiceCache(
            settings.remembered_conditionals, lambda known: self.metrics.voices.labels(known=str(known).lower()).inc()
        )
        self.metrics.watch("chatterbox_queue_waiting", "Requests that wait for their turn.", lambda: self.queue.waiting)
        self.metrics.watch("chatterbox_queue_limit", "Requests that may wait.", lambda: self.queue.max_waiting)
        self.metrics.watch("chatterbox_generating", "1 while the model works.", lambda: self.queue.running_for is not None)
        self.metrics.watch("chatterbox_model_loaded", "1 when the model can speak.", lambda: self.loaded.status == "healthy")

    async def utterance(self, request: GenerateRequest, upload: bytes | None = None) -> Utterance:
        """What is asked for, all of it checked before anything waits for its turn.

        Raises:
            ServiceError
        """
        text = request.checked_text()
        language = known_language(request.language, self.loaded.get())
        reference = await asyncio.to_thread(self._reference, request, upload)
        if reference is None and not self.loaded.get().has_own_voice:
            raise BadReference("the model has no voice of its own here: a voice or a reference is needed")
        return Utterance(text, language, reference, request.manner, request.chosen_seed())

    def _reference(self, request: GenerateRequest, upload: bytes | None) -> Reference | None:
        if upload is not None:
            return self.references.add(upload)
        if request.reference_audio is not None:
            return self.references.add_base64(request.reference_audio)
        if request.reference is not None:
            return self.references.find(request.reference)
        if request.voice is not None:
            return self.voices.find(request.voice)
        return None

    def speak(self, utterance: Utterance, stop: Callable[[], bool]) -> Speech:
        """On the model's thread."""
        model = self.loaded.get()
        began = time.monotonic()
        try:
            speech = speak(utterance, model, self.known_voices, stop)
        except ModelFailed as error:
            _log.critical("%s", error)
            self.loaded.fail(error)
            self.broken = True
            self.on_broken()
            raise
        self.metrics.generation.observe(time.monotonic() - began)
        self.metrics.speech.inc(speech.duration)
        self.metrics.letters.inc(len(utterance.text))
        self.metrics.cut.inc(len(speech.cut))
        return speech

    async def answer(self, request: Request, utterance: Utterance, form: Callable[[Utterance, Speech], T]) -> T:
        """The speech in the form it is answered in, made when its turn has come and while its client is there."""

        def work(stop: Callable[[], bool]) -> T:
            return form(utterance, self.speak(utterance, stop))

        return await _while_there(request, self.queue.run(texts.length(utterance.text), work))


def create_app(settings: Settings, loader: Callable[[], SpeechModel], read_gpus: Callable[[], list[Gpu]] = gpus) -> FastAPI:
    """The service. It answers at once, and loads its model in the background."""
    service = Service(settings, loader, read_gpus)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.loaded.start()
        yield
        service.loaded.close()

    app = FastAPI(title="Chatterbox service", lifespan=lifespan)
    app.state.service = service
    app.add_middleware(BodyLimit, max_reference_bytes=settings.max_reference_bytes)
    app.add_middleware(AnswerCount, metrics=service.metrics)
    _add_faults(app)

    @app.get("/health")
    def health() -> dict[str, Any]:
        model = service.loaded.get() if service.loaded.status == "healthy" else None
        running = service.queue.running_for
        return {
            "status": service.loaded.status,
            "model_loaded": model is not None,
            "device": model.device if model else None,
            "vram_used_gb": round(model.memory_used(), 2) if model else 0.0,
            "reason": service.loaded.failure,
            "queue": {
                "waiting": service.queue.waiting,
                "limit": service.queue.max_waiting,
                "generating_seconds": None if running is None else round(running, 1),
            },
            "gpus": [gpu._asdict() for gpu in service.read_gpus()],
            "fingerprint": {**model.fingerprint(), "service": VERSION, "piece_letters": PIECE_TEXT, "pause_seconds": PAUSE}
            if model
            else None,
        }

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type=TYPE)

    @app.get("/api/languages")
    def languages() -> dict[str, Any]:
        known = service.loaded.get().languages()
        return {"languages": [{"code": code, "name": language.name, "note": language.note} for code, language in known.items()]}

    @app.get("/api/voices")
    def voices() -> dict[str, Any]:
        model = service.loaded.get() if service.loaded.status == "healthy" else None
        return {"own_voice": model.has_own_voice if model else None, "voices": service.voices.listed()}

    @app.put("/api/references/{sha256}", status_code=201)
    async def put_reference(sha256: str, request: Request) -> dict[str, Any]:
        if not is_digest(sha256):
            raise BadReference("reference: the SHA-256 of the recording, 64 hexadecimal digits in small letters, is expected")
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > settings.max_reference_bytes:
                raise BodyTooLarge(f"reference audio: more than {settings.max_reference_bytes} bytes")
        if digest_of(bytes(data)) != sha256:
            raise BadReference("reference audio: its SHA-256 is not the one in the address")
        reference = await asyncio.to_thread(service.references.add, bytes(data))
        return {"reference": reference.name, "duration_seconds": round(reference.duration, 3)}

    @app.post("/api/tts/generate")
    async def generate(body: GenerateRequest, request: Request) -> JSONResponse:
        service.loaded.get()
        service.queue.check_place()
        utterance = await service.utterance(body)
        return JSONResponse(await service.answer(request, utterance, _as_json))

    @app.post("/api/tts/generate-file", openapi_extra=_FORM)
    async def generate_file(request: Request) -> Response:
        service.loaded.get()
        service.queue.check_place()  # before a recording is taken in
        async with request.form(max_files=1, max_fields=16) as form:
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            files = {name: value for name, value in form.items() if isinstance(value, UploadFile)}
            upload = None
            if file := files.pop("reference_audio", None):
                upload = await file.read() if file.filename or file.size else None  # a browser sends an empty one for none
        if files:
            raise BadRequest(f"{next(iter(files))[:60]!a}: no file is expected there")
        if fields.pop("reference_audio", ""):
            raise BadRequest("reference_audio: a file is expected")
        parameters = from_form(fields)
        if upload is not None and (parameters.voice or parameters.reference):
            raise BadRequest("only one of voice, reference and reference_audio may be given")
        utterance = await service.utterance(parameters, upload)
        return await service.answer(request, utterance, _as_file)

    @app.post("/api/tts/batch")
    async def batch(body: BatchRequest, request: Request) -> JSONResponse:
        service.loaded.get()
        service.queue.check_place()
        if len(body.items) > settings.max_batch:
            raise BadRequest(f"items: {len(body.items)}, at most {settings.max_batch}")
        asked: list[Utterance | ServiceError] = []
        for item in body.items:
            try:
                asked.append(await service.utterance(parsed(item)))
            except ServiceError as error:
                asked.append(error)

        def work(stop: Callable[[], bool]) -> list[dict[str, Any]]:
            return [_result(service, item, stop) for item in asked]

        letters = sum(texts.length(item.text) for item in asked if isinstance(item, Utterance))
        results = await _while_there(request, service.queue.run(letters, work)) if letters else work(lambda: False)
        return JSONResponse({"results": results})

    return app


def _result(service: Service, item: Utterance | ServiceError, stop: Callable[[], bool]) -> dict[str, Any]:
    """An item's answer. What is wrong with one spoils no other."""
    if isinstance(item, ServiceError):
        return item.body()
    try:
        return _as_json(item, service.speak(item, stop))
    except ServiceError as error:
        return error.body()
    except Stopped:
        raise
    except Exception:
        _log.exception("an item of a batch failed")
        return ServiceError("internal error").body()


def _as_json(utterance: Utterance, speech: Speech) -> dict[str, Any]:
    return {
        "audio_base64": base64.b64encode(speech.wav()).decode("ascii"),
        "sample_rate": speech.sample_rate,
        "duration_seconds": round(speech.duration, 3),
        **_facts(utterance, speech),
    }


def _as_file(utterance: Utterance, speech: Speech) -> Response:
    facts = _facts(utterance, speech)
    headers = {
        "X-Sample-Rate": str(speech.sample_rate),
        "X-Duration-Seconds": f"{speech.duration:.3f}",
        "X-Seed": str(facts["seed"]),
        "X-Pieces": str(facts["pieces"]),
        "X-Cut": str(facts["cut"]).lower(),
        "X-Warnings": json.dumps(facts["warnings"]),
    }
    if facts["reference"]:
        headers["X-Reference"] = facts["reference"]
    return Response(speech.wav(), media_type="audio/wav", headers=headers)


def _facts(utterance: Utterance, speech: Speech) -> dict[str, Any]:
    """What is told of a clip besides the documented fields."""
    return {
        "seed": utterance.seed,
        "language": utterance.language,
        "reference": utterance.reference.name if utterance.reference else None,
        "pieces": speech.pieces,
        "cut": bool(speech.cut),
        "warnings": [f"cut off where the model's limit was reached: {text[:_QUOTED]!r}" for text in speech.cut],
    }


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result, if its client waits for it; else the work is cancelled. The request's body has been read.

    Raises:
        ClientGone, and what the work raises.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_faults(app: FastAPI) -> None:
    """Every fault is answered in the same form."""

    @app.exception_handler(ServiceError)
    async def known(request: Request, error: ServiceError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers())

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return await known(request, BadRequest(faults(error.errors())))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        message = " ".join(str(error.detail).split())
        body = {"error": {"code": _CODES.get(error.status_code, "invalid_request"), "message": message}}
        return JSONResponse(body, error.status_code, dict(error.headers or {}))

    @app.exception_handler(ClientGone)
    @app.exception_handler(Stopped)
    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(ServiceError("internal error").body(), 500)


_FORM = {  # for the documentation page: the form is read by hand, so that it can be refused while it comes in
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["text"],
                    "properties": {
                        **{name: {"type": "string"} for name in ("text", "language", "voice", "reference")},
                        **{name: {"type": "number"} for name in ("exaggeration", "cfg_weight", "temperature")},
                        "seed": {"type": "integer"},
                        "reference_audio": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    }
}
