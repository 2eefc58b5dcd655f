"""How fast each of Kokoro's voices speaks:  python -m tests.benchmarks.pace

Characters a second at natural speed, by language and voice, against the language's default voice: the table `VOICES` of `dubbing/pace.py`.
"""

from __future__ import annotations

from blocks.speech import Kokoro
from blocks.speech_engine import SpeechEngine
from dubbing import audio

TEXTS = {
    "en": (
        "Light of every colour crosses empty space at the same speed. "
        "In glass the blue part is slowed more than the red, and so a prism spreads white light into a band. "
        "Why is it slowed at all? "
        "Let us look at a single wave."
    ),
    "es": (
        "La luz de todos los colores cruza el vacío a la misma velocidad. "
        "En el vidrio, la parte azul se frena más que la roja, y por eso un prisma abre la luz blanca en una "
        "banda. "
        "¿Por qué se frena? "
        "Veamos una sola onda."
    ),
    "fr": (
        "La lumière de toutes les couleurs traverse le vide à la même vitesse. "
        "Dans le verre, le bleu est plus ralenti que le rouge, et un prisme étale donc la lumière blanche. "
        "Pourquoi ralentit-elle ? "
        "Regardons une seule onde."
    ),
    "hi": (
        "हर रंग का प्रकाश खाली जगह में एक ही गति से चलता है। "
        "काँच में नीला भाग लाल से अधिक धीमा होता है, इसलिए प्रिज़्म सफ़ेद प्रकाश को फैला देता है। "
        "वह धीमा क्यों होता है? "
        "आइए एक तरंग को देखें।"
    ),
    "it": (
        "La luce di ogni colore attraversa il vuoto alla stessa velocità. "
        "Nel vetro la parte blu rallenta più della rossa, e così un prisma apre la luce bianca in una fascia. "
        "Perché rallenta? "
        "Guardiamo una sola onda."
    ),
    "pt": (
        "A luz de todas as cores atravessa o vazio à mesma velocidade. "
        "No vidro, a parte azul é mais atrasada do que a vermelha, e por isso um prisma abre a luz branca "
        "numa faixa. "
        "Por que ela se atrasa? "
        "Vejamos uma única onda."
    ),
    "ja": (
        "どの色の光も、何もない空間を同じ速さで進みます。"
        "ガラスの中では青い光が赤い光より遅くなるので、プリズムは白い光を帯に広げます。"
        "なぜ遅くなるのでしょうか。"
        "一つの波を見てみましょう。"
    ),
    "zh": (
        "各种颜色的光在真空中以相同的速度传播。在玻璃中，蓝光比红光慢得多，所以棱镜把白光展开成一条色带。为什么会变慢呢？我们来看一个波。"
    ),
}


def pace(engine: SpeechEngine, language: str, voice: str) -> float:
    """Characters a second."""
    speech = engine.synthesize(TEXTS[language], language, voice, 0)
    spoken = audio.trim_silence(speech.samples, speech.sample_rate)
    return len(TEXTS[language]) / (len(spoken) / speech.sample_rate)


def main() -> None:
    engine = Kokoro()
    for language in TEXTS:
        voices = engine.voices(language)
        usual = pace(engine, language, voices[0])
        for voice in voices:
            print(f"{language} {voice:14} {pace(engine, language, voice) / usual:.2f}", flush=True)


if __name__ == "__main__":
    main()
