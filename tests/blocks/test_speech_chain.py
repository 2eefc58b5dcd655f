"""Speech engines one after another, as a block: how it is made, what its keys say, what it speaks."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.chatterbox import Chatterbox
from blocks.speech import Kokoro, SpeechChain
from dubbing.errors import BadSetting, UnsupportedLanguage
from dubbing.keys import described, digest


def names(chain: Any) -> list[str]:
    return [engine.engine_name for engine in chain.engines()]


def test_chatterbox_comes_first_and_kokoro_takes_its_place() -> None:
    assert names(SpeechChain()) == ["chatterbox", "kokoro"]


def test_engines_may_be_named_or_given_with_their_settings() -> None:
    chain = SpeechChain(chain=["kokoro", Chatterbox(exaggeration=0.7)])  # type: ignore[list-item]
    assert names(chain) == ["kokoro", "chatterbox"] and chain.chain[1].exaggeration == 0.7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "says"),
    [([], "at least 1"), (["gramophone"], "a speech engine is expected"), ([3], "a speech engine"), (["kokoro", Kokoro()], "once")],
    ids=["none", "unknown", "no engine", "twice"],
)
def test_what_is_no_chain_is_refused(given: list[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SpeechChain(chain=given)


def test_it_is_what_it_was_after_it_was_saved(prefect_server: None) -> None:
    chain = SpeechChain(chain=[Chatterbox(exaggeration=0.7, clone=3), Kokoro(speed=1.1)], mixing=True)
    chain.save("of-the-test", overwrite=True)
    loaded = SpeechChain.load("of-the-test")
    assert isinstance(loaded, SpeechChain) and digest(loaded) == digest(chain) and names(loaded) == names(chain)


def test_a_language_is_spoken_when_one_of_them_speaks_it() -> None:
    chain = SpeechChain()
    chain.check("ru", None)
    assert chain.voices("ru") == Chatterbox().voices("ru") and {"ru", "hi"} <= set(chain.languages())
    with pytest.raises(UnsupportedLanguage, match=r"Icelandic.*chain doesn't speak it"):
        chain.check("is", None)


def test_a_voice_is_known_when_one_of_them_has_it() -> None:
    chain = SpeechChain()
    for voice in ("lecturer", "af_heart"):
        chain.check("en", voice)
    with pytest.raises(BadSetting, match="voice nobody: chain has no such voice for en; it has lecturer, default, af_heart"):
        chain.check("en", "nobody")


def test_leaving_an_engine_out_is_another_key_which_says_so() -> None:
    whole = SpeechChain()
    rest = whole.without("chatterbox", "chatterbox: nobody answers")
    assert rest is not None and names(rest) == ["kokoro"] and names(whole) == ["chatterbox", "kokoro"]
    before, after = described(whole), described(rest)
    assert {name for name in before if before[name] != after[name]} == {"settings.left_out"}
    assert after["settings.left_out"] == "chatterbox: nobody answers"
    assert rest.without("kokoro", "kokoro: gone") is None, "nobody would be left"


def test_the_order_counts() -> None:
    assert digest(SpeechChain(chain=[Kokoro(), Chatterbox()])) != digest(SpeechChain(chain=[Chatterbox(), Kokoro()]))
    assert digest(SpeechChain(chain=[Chatterbox(address="http://other:1")])) == digest(SpeechChain(chain=[Chatterbox()]))
