"""One contract over every engine of every family: what it says of itself is complete, and costs nothing until it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from blocks import engine as engine_module
from blocks.engine import Engine, LocalEngine
from blocks.separation import SEPARATORS, Separator
from blocks.speech import SPEECH_ENGINES, SpeechEngine
from blocks.transcription import RECOGNISERS, FasterWhisper, Recogniser
from blocks.translation import TRANSLATORS, LlamaTranslator, Translator, WhisperTranslator
from dubbing import weights
from dubbing.keys import digest

ROOT = Path(__file__).parents[2]
FAMILIES = {Separator: SEPARATORS, Recogniser: RECOGNISERS, Translator: TRANSLATORS, SpeechEngine: SPEECH_ENGINES}
ENGINES = [engine for table in FAMILIES.values() for engine in table.values()]
HEAVY = [
    "faster_whisper",
    "ctranslate2",
    "onnxruntime",
    "kokoro_onnx",
    "xllamacpp",
    "torch",
    "scipy.signal",
    "matplotlib",
    "pandas",
    "misaki",
]

ELSEWHERE = {"chatterbox", "chain", "ollama", "openai", "whisperx"}  # their models are a service's, a hub's, or other engines'

engine_that_computes = pytest.mark.parametrize(
    "engine", [engine for engine in ENGINES if engine.engine_name not in ELSEWHERE], ids=lambda engine: engine.__name__
)
every_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.__name__)


def other_values(engine: type[Engine], name: str) -> list[Any]:
    """Values that a setting doesn't have by default and may have."""
    default = getattr(engine(), name)
    if isinstance(default, Engine):
        return variants(default)
    if isinstance(default, list):
        inner = [[*default[:at], other, *default[at + 1 :]] for at, part in enumerate(default) for other in variants(part)]
        return [default[::-1], default[:1], *inner]
    if isinstance(default, dict):
        return [{"some": f"owner/name@{0:040}"}]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, tuple):
        return [(*default, "another")]
    if default is None:
        if "token" in name or "key" in name:
            return [SecretStr("x")]
        return [LlamaTranslator()] if name == "fallback" else [1]
    if choices := [value for value in get_args(engine.model_fields[name].annotation) if value != default]:
        return choices
    if isinstance(default, str):
        if name == "model":
            return [entry.name for entry in weights.catalogue() if entry.name != default]
        return [f"owner/name@{0:040}" if "@" in default else default + "x"]
    return [default + 1]


def variants(engine: Engine) -> list[Engine]:
    """The engine with one other setting that has an effect, each in turn."""
    return [
        engine.model_copy(update={name: value})
        for name in type(engine).model_fields
        if name not in engine.settings_without_effect
        for value in other_values(type(engine), name)
    ]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_a_table_lists_the_engines_of_its_family_by_name(family: type[Engine]) -> None:
    assert FAMILIES[family]
    for name, engine in FAMILIES[family].items():
        assert issubclass(engine, family)
        assert engine.engine_name == name
    assert "To add" in (family.__doc__ or "")


@every_engine
def test_it_says_what_it_is_and_what_each_setting_means(engine: type[Engine]) -> None:
    assert engine.__doc__ and engine.__doc__ != Engine.__doc__
    assert engine.get_description()
    for name, field in engine.model_fields.items():
        assert field.description or name in ("temperature", "seed", "beam_size", "recogniser"), f"{name} says nothing"
    assert engine.settings_without_effect <= set(engine.model_fields)


def test_block_types_have_names_of_their_own() -> None:
    assert len({engine.get_block_type_slug() for engine in ENGINES}) == len(ENGINES)
    assert len({engine.get_block_type_name() for engine in ENGINES}) == len(ENGINES)


@every_engine
def test_its_fingerprint_is_plain_json_and_has_a_place_in_keys(engine: type[Engine]) -> None:
    fingerprint = engine().fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert digest(engine()) == digest(engine())
    assert fingerprint["engine"] == engine.__name__


@every_engine
def test_its_fingerprint_changes_with_every_setting_that_has_an_effect(engine: type[Engine]) -> None:
    used = engine().model_copy(update={"diarised": True} if "diarised" in engine.model_fields else {})  # what isn't used counts for nothing
    seen = [digest(used)]
    for name in engine.model_fields:
        if name not in engine.settings_without_effect:
            seen += [digest(used.model_copy(update={name: value})) for value in other_values(engine, name) if value != getattr(used, name)]
    assert len(set(seen)) == len(seen) >= len(set(engine.model_fields) - engine.settings_without_effect - {"diarised"})


@every_engine
def test_its_fingerprint_does_not_change_with_a_setting_without_effect(engine: type[Engine]) -> None:
    for name in engine.settings_without_effect:
        for value in other_values(engine, name):
            assert digest(engine().model_copy(update={name: value})) == digest(engine())


@every_engine
def test_how_long_its_models_stay_in_memory_shapes_nothing(engine: type[Engine]) -> None:
    if issubclass(engine, LocalEngine):
        assert digest(engine(keep_loaded_for=60)) == digest(engine())
    else:
        assert "keep_loaded_for" not in engine.model_fields


def test_the_threads_of_an_engine_inside_an_engine_have_no_effect_either() -> None:
    one, two = (WhisperTranslator(recogniser=FasterWhisper(threads=threads)) for threads in (1, 2))
    assert digest(one) == digest(two)


@engine_that_computes
def test_its_fingerprint_changes_with_its_weights(engine: type[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(engine())
    assert engine().fingerprint()["weights"]
    for name in engine().weights_names():
        entry = weights.find(name)
        changed = entry.model_copy(update={"files": (entry.files[0].model_copy(update={"sha256": "00" * 32}), *entry.files[1:])})
        with monkeypatch.context() as patch:
            patch.setattr(weights, "catalogue", lambda changed=changed: (changed, *weights._CATALOGUE))
            assert digest(engine()) != before
    assert digest(engine()) == before


@engine_that_computes
def test_its_fingerprint_changes_with_the_version_of_every_package_that_computes(
    engine: type[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(engine())
    assert engine.packages
    for package in engine.packages:
        assert engine.extra or version(package)
        with monkeypatch.context() as patch:
            patch.setattr(engine_module, "version", lambda name, package=package: "999" if name == package else version(name))
            assert digest(engine()) != before


def test_the_weights_that_are_fetched_unasked_are_those_of_the_engines_that_are_always_there() -> None:
    loaded = {name for engine in ENGINES if not engine.extra for name in engine().weights_names()}
    assert {entry.name for entry in weights.catalogue() if entry.built_in} == loaded


@every_engine
def test_its_fingerprint_says_nothing_of_this_machine(engine: type[Engine]) -> None:
    said = json.dumps(engine().fingerprint())
    assert str(Path.home()) not in said and str(ROOT) not in said


def test_another_process_finds_the_same_fingerprints() -> None:
    program = (
        "import blocks.separation as a, blocks.transcription as b, blocks.translation as c, blocks.speech as d\n"
        "from dubbing.keys import digest\n"
        "for table in (a.SEPARATORS, b.RECOGNISERS, c.TRANSLATORS, d.SPEECH_ENGINES):\n"
        "    for engine in table.values(): print(digest(engine()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest(engine()) for engine in ENGINES]


@every_engine
def test_it_may_be_closed_before_it_was_used_and_twice(engine: type[Engine]) -> None:
    unused = engine()
    unused.close()
    unused.close()


@every_engine
def test_negative_threads_are_refused(engine: type[Engine]) -> None:
    if "threads" in engine.model_fields:
        with pytest.raises(ValueError, match="threads"):
            engine(threads=-1)


def test_naming_an_engine_loads_nothing_heavy() -> None:
    program = (
        "import sys, blocks.separation, blocks.transcription, blocks.translation, blocks.speech, blocks.store\n"
        "for table in (blocks.separation.SEPARATORS, blocks.transcription.RECOGNISERS, blocks.translation.TRANSLATORS, "
        "blocks.speech.SPEECH_ENGINES):\n"
        "    for engine in table.values(): engine().fingerprint()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SESSION = """
{first}
import numpy, onnxruntime
from onnx import TensorProto, helper
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "graph", [value("x")], [value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
assert session.run(None, {{"x": numpy.ones(1, "float32")}})[0] == -1
"""


@pytest.mark.parametrize(("first", "reported"), [("", True), ("import blocks.engine", False)], ids=["by itself", "in an engine"])
def test_onnx_runtime_keeps_no_account_of_its_use(first: str, reported: bool, tmp_path: Path) -> None:
    """It collects what it would send in a database, unless it is told not to or sees that it runs in a CI."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PREFECT_HOME") if name in os.environ}
    environment = {**kept, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", SESSION.format(first=first)], cwd=ROOT, env=environment, check=True)
    assert bool(list(tmp_path.rglob("onnxruntime.db"))) == reported
