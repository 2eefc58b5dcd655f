"""Translators whose model is on a server: what they ask of it, and what becomes of a lesson when it misbehaves."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

import blocks.answers
from blocks import engine as engine_module
from blocks.ollama import SMALLEST_CONTEXT, OllamaTranslator
from blocks.openai_server import OpenAITranslator
from blocks.translator import ChatTranslator
from dubbing.errors import BadSetting, CoursedubError, PassingFault
from dubbing.keys import digest
from dubbing.lesson import Term, TranslatedLine, Utterance
from dubbing.translating import Window
from tests.chat_servers import DIGEST, BreaksOff, ChatServer, GoesOn, Hangs, Move, Nonsense, Page, Refuses, Says

LECTURE = {
    "Красный свет поворачивает меньше.": "Red light turns less.",
    "Синий свет поворачивает больше.": "Blue light turns more.",
    "Белый свет состоит из цветов.": "White light is made of colours.",
    "Радуга появляется после дождя.": "The rainbow appears after rain.",
}
GOOD = list(LECTURE.values())
RED, BLUE, WHITE, RAINBOW = LECTURE


def window(*texts: str) -> Window:
    lines = [Utterance(id=f"line{n}", text=text, start=5.0 * n, end=5.0 * n + 4, confidence=1.0) for n, text in enumerate(texts, 1)]
    return Window(tuple(lines))


def ollama(server: ChatServer, **settings: Any) -> OllamaTranslator:
    return OllamaTranslator(model="qwen2.5:14b", host=server.address, **{"retry_delay": 0.0, "retries": 2, **settings})


def openai(server: ChatServer, **settings: Any) -> OpenAITranslator:
    return OpenAITranslator(model="qwen2.5:14b", base_url=f"{server.address}/v1", **{"retries": 2, **settings})


BLOCKS = {"ollama": ollama, "openai": openai}
every_block = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())


def translated(translator: ChatTranslator, lecture: Window | None = None) -> list[TranslatedLine]:
    lines = translator.translate(lecture or window(*LECTURE), "ru", "en")
    translator.close()
    return lines


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# Answers


@every_block
def test_a_lesson_is_translated(block: Any) -> None:
    with ChatServer(LECTURE.get) as server:
        lines = translated(block(server))
    assert [line.text for line in lines] == GOOD
    assert {(line.flags, line.attempts, line.rung) for line in lines} == {((), 1, "window")}
    assert all("qwen2.5:14b" in line.model for line in lines)


ALL = ["1", "2", "3", "4"]


def but(**other: str) -> Says:
    """A good answer with other lines in it; empty ones are left out."""
    lines = dict(zip(ALL, GOOD, strict=True)) | {name.removeprefix("line"): text for name, text in other.items()}
    return Says({n: text for n, text in lines.items() if text})


MISBEHAVIOURS: dict[str, tuple[Move, list[str]]] = {  # and the lines that are asked for again
    "no JSON": (Says("Sure, I can translate that for you!"), ALL),
    "nothing": (Says(""), ALL),
    "broken JSON": (Says('{"1": "Red light turns less.", "2": Blue}'), ["2", "3", "4"]),
    "cut off": (Says('{"1": "Red light turns less.", "2": "Blue light tu', "length"), ["2", "3", "4"]),
    "a refusal": (but(line2="I'm sorry, I can't help with that."), ["2"]),
    "the source again": (but(line3=WHITE), ["3"]),
    "another script": (but(line3="白光由多种颜色组成。"), ["3"]),
    "a missing line": (but(line3=""), ["3"]),
    "merged lines": (but(line1=f"{GOOD[0]} {GOOD[1]}"), ["1"]),
    "a line twice": (but(line3=GOOD[1]), ["2", "3"]),
}


@every_block
@pytest.mark.parametrize("answer", MISBEHAVIOURS)
def test_after_a_bad_answer_only_what_was_wrong_is_asked_for_again(block: Any, answer: str) -> None:
    move, again = MISBEHAVIOURS[answer]
    with ChatServer(LECTURE.get, move) as server:
        lines = translated(block(server))
        assert [line.text for line in lines] == GOOD
        assert not any(line.flags for line in lines)
        assert server.lines_asked == [ALL, again]
    wrong = [f"line{n}" for n in again]
    assert [line.id for line in lines if line.rung == "again"] == wrong
    assert [line.attempts for line in lines] == [2 if line.id in wrong else 1 for line in lines]


@every_block
def test_another_model_translates_what_stays_wrong(block: Any) -> None:
    with ChatServer(lambda line: "" if line == BLUE else LECTURE[line]) as small, ChatServer(LECTURE.get) as large:
        lines = translated(block(small, fallback=ollama(large)))
        assert large.lines_asked == [["2"]]
        assert small.lines_asked == [ALL, ["2"], ["2"]]
        assert [path for path, body in large.requests if path == "/api/generate"], "the other model is unloaded too"
    assert (lines[1].text, lines[1].rung, lines[1].attempts, lines[1].flags) == (GOOD[1], "fallback", 4, ())
    assert lines[1].model.startswith("ollama") and lines[0].rung == "window"


# What is asked


def test_ollama_is_told_all_that_shapes_an_answer() -> None:
    with ChatServer(LECTURE.get) as server:
        translated(ollama(server, seed=7, temperature=0.2, keep_alive="3m"), window(RED, BLUE)._replace(summary="On light."))
        [asked] = server.asked("/api/chat")
    assert asked["model"] == "qwen2.5:14b" and asked["keep_alive"] == "3m" and asked["stream"] is True
    assert asked["format"]["required"] == ["1", "2"] and asked["format"]["additionalProperties"] is False
    assert asked["options"]["num_ctx"] == SMALLEST_CONTEXT
    assert (asked["options"]["seed"], asked["options"]["temperature"]) == (7, 0.2)
    assert 0 < asked["options"]["num_predict"] < SMALLEST_CONTEXT
    system, user = asked["messages"]
    assert system["role"] == "system" and "On light." in system["content"]
    assert json.loads(user["content"]) == {"1": RED, "2": BLUE}


def test_the_context_grows_with_the_request_and_does_not_shrink() -> None:
    long = window(*[f"Красный свет поворачивает меньше. {'Белый свет состоит из цветов. ' * 30}"] * 2)
    with ChatServer(lambda line: LECTURE.get(line, "x")) as server:
        translator = ollama(server)
        for asked_for in (window(*LECTURE), long, window(*LECTURE)):
            translator.translate(asked_for, "ru", "en")
        translator.close()
        sizes = [body["options"]["num_ctx"] for body in server.asked("/api/chat")]
    assert sizes[0] == SMALLEST_CONTEXT < sizes[1]
    assert sizes == sorted(sizes)


def test_a_window_too_long_for_the_context_is_asked_for_in_pieces() -> None:
    text = "Белый свет состоит из цветов. " * 5
    said = "White light is made of colours. " * 5
    with ChatServer(lambda line: f"{said}{line[-2]}.") as server:
        lines = translated(ollama(server, context=2048), window(*(f"{text}{n}." for n in range(8))))
        assert all(len(asked) < 8 for asked in server.lines_asked)
    assert [line.flags for line in lines] == [()] * 8
    assert {line.rung for line in lines} <= {"split", "line"}


def test_ollama_unloads_the_model_at_the_end_once_it_was_used() -> None:
    with ChatServer(LECTURE.get) as server:
        ollama(server).close()
        assert server.requests == []
        translated(ollama(server))
        [unloading] = server.asked("/api/generate")
    assert (unloading["model"], unloading["keep_alive"]) == ("qwen2.5:14b", 0)


def test_ollama_gives_the_gpu_back_between_stages() -> None:
    with ChatServer(LECTURE.get) as server:
        translator = ollama(server)
        for _ in range(2):
            translator.translate(window(*LECTURE), "ru", "en")
            translator.rest()
            translator.rest()
        translator.close()
        assert [path for path, _ in server.requests] == ["/api/tags", "/api/chat", "/api/generate", "/api/chat", "/api/generate"]


def test_a_server_that_went_away_does_not_disturb_the_end() -> None:
    with ChatServer(LECTURE.get) as server:
        translator = ollama(server)
        translator.translate(window(*LECTURE), "ru", "en")
    translator.close()


def test_terms_are_asked_for_where_they_occur() -> None:
    terms = (Term(source="свет", translation="light"), Term(source="призма", translation="prism"))
    with ChatServer(LECTURE.get) as server:
        translated(openai(server), window(RED)._replace(terms=terms))
        [asked] = server.asked("/v1/chat/completions")
    told = asked["messages"][0]["content"]
    assert "свет = light" in told and "prism" not in told


# The model


def test_a_model_that_was_not_pulled_is_named_with_the_command_to_run() -> None:
    with ChatServer(LECTURE.get, models={"llama3.2:latest": DIGEST}) as server, pytest.raises(BadSetting) as refused:
        translated(ollama(server))
    assert "ollama pull qwen2.5:14b" in str(refused.value) and server.address in str(refused.value)


def test_a_tag_without_a_version_is_the_latest() -> None:
    with ChatServer(LECTURE.get, models={"mistral:latest": DIGEST, "mistral": DIGEST}) as server:
        translator = OllamaTranslator(model="mistral", host=server.address)
        assert [line.text for line in translated(translator)] == GOOD


def test_a_pinned_digest_is_held_against_the_servers() -> None:
    with ChatServer(LECTURE.get) as server:
        lines = translated(ollama(server, digest=f"sha256:{DIGEST[:12]}"))
        assert lines[0].model == f"ollama qwen2.5:14b ({DIGEST[:12]})"
        with pytest.raises(BadSetting, match="not 0123456789ab"):
            translated(ollama(server, digest="0123456789ab"))


@pytest.mark.parametrize("digest", ["7cdf", "not hexadecimal", "z" * 12, "0" * 65])
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        OllamaTranslator(digest=digest)


def test_a_key_is_known_while_the_server_is_off() -> None:
    off = f"http://127.0.0.1:{free_port()}"
    assert digest(OllamaTranslator(host=off)) == digest(OllamaTranslator())
    assert digest(OllamaTranslator(host=off, digest=DIGEST)) != digest(OllamaTranslator(host=off))
    assert digest(OpenAITranslator(base_url=f"{off}/v1")) != digest(OpenAITranslator(base_url="http://elsewhere/v1"))


def test_a_secret_shapes_no_key_and_is_not_shown() -> None:
    with_key = OpenAITranslator(api_key="sk-secret")
    assert digest(with_key) == digest(OpenAITranslator())
    assert "sk-secret" not in repr(with_key) + json.dumps(with_key.fingerprint())


@pytest.mark.parametrize(
    "address", ["localhost:8000/hunter2", "ftp://host/hunter2", "https://a:hunter2@host/v1", "https://host/v1?k=hunter2"]
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="base_url") as given:
        OpenAITranslator(base_url=address)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(ValueError, match="OPENAI_BASE_URL") as found:
        OpenAITranslator()
    assert "hunter2" not in str(given.value) + str(found.value)


@pytest.mark.parametrize("address", ["http://a:hunter2@host", "a:hunter2@host", "http://host?k=hunter2", "hunter2:99999"])
def test_so_it_is_with_ollama(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="host: ") as given:
        OllamaTranslator(host=address)
    monkeypatch.setenv("OLLAMA_HOST", address)
    with pytest.raises(ValueError, match="OLLAMA_HOST: ") as found:
        OllamaTranslator()
    assert "hunter2" not in str(given.value) + str(found.value)


@pytest.mark.parametrize(("engine", "variable"), [(OllamaTranslator, "OLLAMA"), (OpenAITranslator, "OPENAI")], ids=["ollama", "openai"])
def test_an_empty_variable_means_the_usual_model(engine: type[Any], variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"COURSEDUB_{variable}_MODEL", raising=False)
    usual = engine().model
    monkeypatch.setenv(f"COURSEDUB_{variable}_MODEL", "")
    assert engine().model == usual != ""


def test_ollamas_address_may_be_given_as_ollama_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(LECTURE.get) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.address.replace("http://127.0.0.1", "0.0.0.0"))
        translator = OllamaTranslator(model="qwen2.5:14b")
        assert translator.address == server.address
        assert [line.text for line in translated(translator)] == GOOD


@every_block
def test_a_key_that_a_server_repeats_is_not_told(block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter2-very-long")
    monkeypatch.setenv("OLLAMA_API_KEY", "sk-hunter2-very-long")
    for status in (400, 500):
        said = f"{'x' * 180} header Authorization: Bearer sk-hunter2-very-long is too much"
        error = said if block is ollama else {"message": said}
        with ChatServer(LECTURE.get, Refuses(status, error)) as server, pytest.raises(CoursedubError) as told:
            block(server, retries=0).ask("", "{}", {"type": "object", "properties": {}})
        assert "xxx" in str(told.value) and "hunter2" not in str(told.value)


def without(package: str) -> Callable[[str], str]:
    """`importlib.metadata.version` where that package is not installed."""

    def version_of(name: str) -> str:
        if name == package:
            raise PackageNotFoundError(name)
        return version(name)

    return version_of


@pytest.mark.parametrize("translator", [OllamaTranslator(), OpenAITranslator()], ids=["ollama", "openai"])
def test_the_servers_client_shapes_no_key(translator: ChatTranslator, monkeypatch: pytest.MonkeyPatch) -> None:
    before = translator.fingerprint()
    monkeypatch.setattr(engine_module, "version", without(translator.engine_name))
    assert translator.missing_packages() == [translator.engine_name]
    assert translator.fingerprint() == before


@pytest.mark.parametrize("translator", [OllamaTranslator(), OpenAITranslator()], ids=["ollama", "openai"])
def test_without_the_servers_client_one_is_told_what_to_install(translator: ChatTranslator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "version", without(translator.engine_name))
    with pytest.raises(BadSetting, match=rf"pip install 'coursedub\[{translator.engine_name}\]'"):
        translated(translator)


# Faults


PASSING: dict[str, Move] = {
    "server error": Refuses(500, "llama runner process has terminated: exit status 2"),
    "model loading": Refuses(503, "llm server loading model"),
    "too many": Refuses(429, {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}, {"Retry-After": "0.01"}),
    "connection cut": BreaksOff('{"1": "Red'),
}


@every_block
@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_waited_out(block: Any, fault: str) -> None:
    with ChatServer(LECTURE.get, PASSING[fault], PASSING[fault]) as server:
        lines = translated(block(server))
        assert len(server.lines_asked) == 3
    assert [line.text for line in lines] == GOOD
    assert {line.attempts for line in lines} == {1}, "a fault of the server is no failed attempt of the model"


def test_an_error_in_the_middle_of_ollamas_answer_is_waited_out() -> None:
    with ChatServer(LECTURE.get, BreaksOff('{"1": "Red', error="CUDA error: out of memory")) as server:
        assert [line.text for line in translated(ollama(server))] == GOOD


@every_block
@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_does_not_pass_is_told_with_the_address(block: Any, fault: str) -> None:
    with ChatServer(LECTURE.get, *[PASSING[fault]] * 3) as server:
        with pytest.raises(PassingFault) as told:
            translated(block(server))
        assert server.address in str(told.value)
        assert len(server.lines_asked) == 3


@every_block
def test_a_server_that_hangs_is_given_up(block: Any) -> None:
    with ChatServer(LECTURE.get, Hangs()) as server, pytest.raises(PassingFault) as told:
        translated(block(server, timeout=2.0, retries=0))
    assert server.address in str(told.value) and "2 s" in str(told.value)


ENDLESS = {
    "a letter at a time": GoesOn(b" "),
    "a token at a time": GoesOn(b'{"model": "m", "message": {"role": "assistant", "content": "a"}, "done": false}\n'),
}


@every_block
@pytest.mark.parametrize("answer", ENDLESS)
def test_an_answer_that_goes_on_and_on_is_given_up_in_time(block: Any, answer: str) -> None:
    with ChatServer(LECTURE.get, ENDLESS[answer]) as server, pytest.raises(PassingFault, match="no answer in 2 s") as told:
        translated(block(server, timeout=2.0, retries=0))
    assert server.address in str(told.value)


@every_block
def test_an_answer_that_is_too_large_is_given_up(block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks.answers, "LARGEST", 100_000)
    with ChatServer(LECTURE.get, GoesOn(b" " * 50_000, 0.0)) as server, pytest.raises(PassingFault) as told:
        translated(block(server, retries=0))
    assert server.address in str(told.value)


def test_ollama_is_not_asked_again_after_it_used_up_its_time() -> None:
    with ChatServer(LECTURE.get, Hangs()) as server:
        with pytest.raises(PassingFault, match="no answer in 2 s"):
            translated(ollama(server, timeout=2.0, retries=3))
        assert len(server.asked("/api/chat")) == 1


@pytest.mark.parametrize(
    "translator",
    [
        lambda address: OllamaTranslator(host=address, retries=1, retry_delay=0.0),
        lambda address: OpenAITranslator(base_url=f"{address}/v1", retries=0),
    ],
    ids=["ollama", "openai"],
)
def test_nobody_at_the_address_is_a_passing_fault(translator: Any) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(PassingFault) as told:
        translated(translator(address))
    assert address in str(told.value) and "can't be reached" in str(told.value)


@every_block
def test_another_server_at_the_address_is_told(block: Any) -> None:
    page = Page("<html>It works!</html>")
    with ChatServer(LECTURE.get, page, page, page) as server, pytest.raises(PassingFault, match="protocol"):
        translated(block(server))


def chosen(choice: Any) -> Nonsense:
    return Nonsense(json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choice}).encode())


NONSENSE = {
    "no gzip": Nonsense(b"certainly not compressed", {"Content-Encoding": "gzip"}),
    "brackets without end": Nonsense(b"[" * 200_000),
    "a list": Nonsense(b"[1, 2]"),
    "a number": Nonsense(b"3"),
    "null": Nonsense(b"null"),
    "an error of no shape": Nonsense(b'{"error": {"a": [1]}}'),
    "an empty choice": chosen([{}]),
    "no choice": chosen([]),
    "a choice of no shape": chosen({"a": 1}),
    "content of no shape": chosen([{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ["a"]}}]),
    "a message of no shape": chosen([{"index": 0, "finish_reason": "stop", "message": "hello"}]),
}


@every_block
@pytest.mark.parametrize("answer", NONSENSE)
def test_an_answer_that_makes_no_sense_is_a_fault_of_the_server(block: Any, answer: str) -> None:
    with ChatServer(LECTURE.get, *[NONSENSE[answer]] * 2) as server, pytest.raises(PassingFault) as told:
        translated(block(server, retries=1))
    assert server.address in str(told.value)


@every_block
@pytest.mark.parametrize("error", ["[" * 200_000, ["a"], {"message": ["a"]}, None], ids=["brackets", "list", "message of no shape", "null"])
def test_a_refusal_that_makes_no_sense_is_a_fault_of_the_server(block: Any, error: Any) -> None:
    with ChatServer(LECTURE.get, *[Refuses(500, error)] * 2) as server, pytest.raises(PassingFault) as told:
        translated(block(server, retries=1))
    assert server.address in str(told.value)


# OpenAI's protocol in its dialects


def refused_parameter(parameter: str, message: str = "") -> Refuses:
    message = message or f"Unsupported parameter: '{parameter}' is not supported with this model."
    return Refuses(400, {"message": message, "type": "invalid_request_error", "param": parameter, "code": "unsupported_parameter"})


def test_a_server_without_schemas_is_asked_for_plain_json() -> None:
    no_schema = refused_parameter("response_format", "'response_format.type' must be 'json_object' or 'text'")
    with ChatServer(LECTURE.get, no_schema, no_schema) as server:
        assert [line.text for line in translated(openai(server))] == GOOD
        kinds = [body["response_format"]["type"] for body in server.asked("/v1/chat/completions")]
    assert kinds == ["json_schema", "json_schema", "json_object"]


def test_a_server_that_takes_no_lengths_is_given_a_schema_without_them() -> None:
    refused = refused_parameter("response_format", "Invalid schema for response_format 'answer': 'maxLength' is not permitted.")
    with ChatServer(LECTURE.get, refused) as server:
        assert [line.text for line in translated(openai(server))] == GOOD
        first, second = (json.dumps(body["response_format"]) for body in server.asked("/v1/chat/completions"))
    assert "maxLength" in first and "maxLength" not in second and '"required"' in second


def test_parameters_that_a_model_does_not_take_are_left_out() -> None:
    with ChatServer(LECTURE.get, refused_parameter("max_tokens"), refused_parameter("temperature")) as server:
        assert [line.text for line in translated(openai(server))] == GOOD
        last = server.asked("/v1/chat/completions")[-1]
    assert "max_completion_tokens" in last and "max_tokens" not in last and "temperature" not in last


def test_a_request_too_long_for_the_server_is_asked_for_in_pieces() -> None:
    message = "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens."
    too_long = Refuses(400, {"message": message, "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"})
    with ChatServer(LECTURE.get, too_long) as server:
        lines = translated(openai(server))
        assert server.lines_asked == [ALL, ["1", "2"], ["3", "4"]]
    assert [(line.text, line.rung) for line in lines] == [(text, "split") for text in GOOD]


def test_a_wrong_key_is_refused_at_once_and_not_shown() -> None:
    with ChatServer(LECTURE.get, key="right") as server:
        with pytest.raises(BadSetting) as refused:
            translated(openai(server, api_key="sk-wrong"))
        assert len(server.requests) == 1
        assert "401" in str(refused.value) and "sk-wrong" not in str(refused.value)
        assert [line.text for line in translated(openai(server, api_key="right"))] == GOOD


def test_the_key_is_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "right")
    with ChatServer(LECTURE.get, key="right") as server:
        assert [line.text for line in translated(openai(server))] == GOOD


def test_a_model_that_the_server_does_not_have_is_named() -> None:
    with ChatServer(LECTURE.get, models={}) as server, pytest.raises(BadSetting, match="the model qwen"):
        translated(openai(server))


def test_what_a_filter_stopped_is_flagged_and_the_rest_of_the_lesson_translated() -> None:
    stopped = Says("", "content_filter")
    with ChatServer(LECTURE.get, stopped, stopped, Says({"1": GOOD[0]}), stopped) as server:
        lines = translated(openai(server), window(RED, BLUE))
    assert [line.text for line in lines] == [GOOD[0], ""]
    assert "filter" in lines[1].flags[0] and not lines[0].flags
