"""Profiles: engines by name, built in or saved in Prefect."""

from __future__ import annotations

import pytest

from blocks.chatterbox import Chatterbox
from blocks.demucs import DemucsSeparator
from blocks.profiles import PROFILES, Profile, profile_named
from blocks.speech_chain import SpeechChain
from blocks.transcription import FasterWhisper
from dubbing.errors import BadSetting


def names(profile: Profile) -> list[str]:
    return [engine.engine_name for engine in profile.engines()]


def test_profiles_choose_the_engines_for_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(profile_named("cpu")) == ["spleeter", "faster-whisper", "llama", "kokoro"]
    assert names(profile_named("gpu")) == ["demucs", "whisperx", "ollama", "chain"]
    assert profile_named(None) == PROFILES["cpu"]
    monkeypatch.setenv("COURSEDUB_PROFILE", "gpu")
    assert profile_named(None) == PROFILES["gpu"]


@pytest.mark.parametrize(
    ("family", "engine"), [("separator", "spleeter"), ("recogniser", "faster-whisper"), ("translator", "whisper"), ("speech", "kokoro")]
)
def test_each_engine_can_be_another(family: str, engine: str) -> None:
    before, after = PROFILES["gpu"].engines(), profile_named("gpu", **{family: engine}).engines()
    assert getattr(after, family).engine_name == engine
    assert [name for name in after._fields if getattr(after, name).engine_name != getattr(before, name).engine_name] == [family]


def test_what_is_not_given_is_the_profiles() -> None:
    assert profile_named("gpu", separator=None, translator="") == PROFILES["gpu"]


@pytest.mark.usefixtures("prefect_server")
def test_profiles_and_engines_with_settings_of_their_own_are_saved_in_prefect() -> None:
    FasterWhisper(beam_size=2).save("quick", overwrite=True)
    SpeechChain(chain=["kokoro"], mixing=True).save("kokoro-alone", overwrite=True)
    Profile(recogniser="coursedub-faster-whisper/quick", speech="coursedub-speech-chain/kokoro-alone").save("ours", overwrite=True)
    for name in ("ours", "coursedub-profile/ours"):
        engines = profile_named(name, separator="demucs").engines()
        assert isinstance(engines.recogniser, FasterWhisper) and engines.recogniser.beam_size == 2
        assert isinstance(engines.speech, SpeechChain) and engines.speech.mixing
        assert [part.engine_name for part in engines.speech.engines()] == ["kokoro"]
        assert isinstance(engines.separator, DemucsSeparator)


@pytest.mark.parametrize("address", ["nonsense", "http://host:99999", "http://anna:hunter2@host"])
@pytest.mark.parametrize(
    ("family", "engine", "variable", "words"),
    [
        ("speech", "chatterbox", "COURSEDUB_CHATTERBOX", "speech chatterbox: address: "),
        ("speech", "chain", "COURSEDUB_CHATTERBOX", "speech chain: address: "),
        ("translator", "openai", "OPENAI_BASE_URL", "translator openai: base_url: "),
        ("translator", "ollama", "OLLAMA_HOST", "translator ollama: host: "),
    ],
)
def test_a_setting_of_the_environment_that_cannot_be_is_refused_in_one_line(
    family: str, engine: str, variable: str, words: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (engine, address) == ("ollama", "nonsense"):
        address = "non sense"  # a name without a blank may be a machine's
    monkeypatch.setenv(variable, address)
    with pytest.raises(BadSetting, match=f"^{words}") as refused:
        profile_named("cpu", **{family: engine}).engines()
    said = str(refused.value)
    assert variable in said and address not in said and "hunter2" not in said and "\N{REPLACEMENT CHARACTER}" not in said


@pytest.mark.usefixtures("prefect_server")
def test_a_saved_engine_with_a_setting_that_cannot_be_is_refused_too() -> None:
    Chatterbox.model_construct(address="http://anna:hunter2@host").save("old", overwrite=True)
    with pytest.raises(BadSetting, match=r"^speech coursedub-chatterbox/old: address: ") as refused:
        profile_named("cpu", speech="coursedub-chatterbox/old").engines()
    assert "hunter2" not in str(refused.value)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "nobodys"}, "profile nobodys: it is none of cpu, gpu, and Prefect has no such block"),
        ({"name": "cpu", "separator": "scissors"}, "separator scissors: it is none of spleeter, demucs, nor a saved block"),
        ({"name": "cpu", "speech": "coursedub-kokoro/nobodys"}, "speech coursedub-kokoro/nobodys: Prefect has no such block"),
        ({"name": "cpu", "translator": "coursedub-kokoro/nobodys"}, "translator coursedub-kokoro/nobodys: it is none of llama"),
    ],
    ids=["profile", "engine", "saved engine", "engine of another kind"],
)
def test_what_there_is_not_is_refused_by_name(given: dict[str, str], words: str) -> None:
    with pytest.raises(BadSetting, match=words) as refused:
        profile_named(**given).engines()
    assert "\n" not in str(refused.value)
