"""Languages by BCP 47 tag: names, the three-letter codes that MP4 and Matroska carry, scripts and habits of writing."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple


class Language(NamedTuple):
    name: str
    iso639_2: str  # terminological code, what containers store
    script: tuple[str, ...]  # first words of its letters' Unicode names


# Whisper's languages (openai/whisper, tokenizer.py lists the same set), with ISO 639-2/T codes from the Library of Congress' table.
LANGUAGES: dict[str, Language] = {
    tag: Language(name, code, tuple(script.split()))
    for tag, name, code, script in (
        ("af", "Afrikaans", "afr", "LATIN"),
        ("am", "Amharic", "amh", "ETHIOPIC"),
        ("ar", "Arabic", "ara", "ARABIC"),
        ("as", "Assamese", "asm", "BENGALI"),
        ("az", "Azerbaijani", "aze", "LATIN"),
        ("ba", "Bashkir", "bak", "CYRILLIC"),
        ("be", "Belarusian", "bel", "CYRILLIC"),
        ("bg", "Bulgarian", "bul", "CYRILLIC"),
        ("bn", "Bengali", "ben", "BENGALI"),
        ("bo", "Tibetan", "bod", "TIBETAN"),
        ("br", "Breton", "bre", "LATIN"),
        ("bs", "Bosnian", "bos", "LATIN"),
        ("ca", "Catalan", "cat", "LATIN"),
        ("cs", "Czech", "ces", "LATIN"),
        ("cy", "Welsh", "cym", "LATIN"),
        ("da", "Danish", "dan", "LATIN"),
        ("de", "German", "deu", "LATIN"),
        ("el", "Greek", "ell", "GREEK"),
        ("en", "English", "eng", "LATIN"),
        ("es", "Spanish", "spa", "LATIN"),
        ("et", "Estonian", "est", "LATIN"),
        ("eu", "Basque", "eus", "LATIN"),
        ("fa", "Persian", "fas", "ARABIC"),
        ("fi", "Finnish", "fin", "LATIN"),
        ("fo", "Faroese", "fao", "LATIN"),
        ("fr", "French", "fra", "LATIN"),
        ("gl", "Galician", "glg", "LATIN"),
        ("gu", "Gujarati", "guj", "GUJARATI"),
        ("ha", "Hausa", "hau", "LATIN"),
        ("haw", "Hawaiian", "haw", "LATIN"),
        ("he", "Hebrew", "heb", "HEBREW"),
        ("hi", "Hindi", "hin", "DEVANAGARI"),
        ("hr", "Croatian", "hrv", "LATIN"),
        ("ht", "Haitian Creole", "hat", "LATIN"),
        ("hu", "Hungarian", "hun", "LATIN"),
        ("hy", "Armenian", "hye", "ARMENIAN"),
        ("id", "Indonesian", "ind", "LATIN"),
        ("is", "Icelandic", "isl", "LATIN"),
        ("it", "Italian", "ita", "LATIN"),
        ("ja", "Japanese", "jpn", "CJK IDEOGRAPHIC HIRAGANA KATAKANA"),
        ("jw", "Javanese", "jav", "LATIN"),
        ("ka", "Georgian", "kat", "GEORGIAN"),
        ("kk", "Kazakh", "kaz", "CYRILLIC"),
        ("km", "Khmer", "khm", "KHMER"),
        ("kn", "Kannada", "kan", "KANNADA"),
        ("ko", "Korean", "kor", "HANGUL"),
        ("la", "Latin", "lat", "LATIN"),
        ("lb", "Luxembourgish", "ltz", "LATIN"),
        ("ln", "Lingala", "lin", "LATIN"),
        ("lo", "Lao", "lao", "LAO"),
        ("lt", "Lithuanian", "lit", "LATIN"),
        ("lv", "Latvian", "lav", "LATIN"),
        ("mg", "Malagasy", "mlg", "LATIN"),
        ("mi", "Maori", "mri", "LATIN"),
        ("mk", "Macedonian", "mkd", "CYRILLIC"),
        ("ml", "Malayalam", "mal", "MALAYALAM"),
        ("mn", "Mongolian", "mon", "CYRILLIC"),
        ("mr", "Marathi", "mar", "DEVANAGARI"),
        ("ms", "Malay", "msa", "LATIN"),
        ("mt", "Maltese", "mlt", "LATIN"),
        ("my", "Burmese", "mya", "MYANMAR"),
        ("ne", "Nepali", "nep", "DEVANAGARI"),
        ("nl", "Dutch", "nld", "LATIN"),
        ("nn", "Norwegian Nynorsk", "nno", "LATIN"),
        ("no", "Norwegian", "nor", "LATIN"),
        ("oc", "Occitan", "oci", "LATIN"),
        ("pa", "Punjabi", "pan", "GURMUKHI"),
        ("pl", "Polish", "pol", "LATIN"),
        ("ps", "Pashto", "pus", "ARABIC"),
        ("pt", "Portuguese", "por", "LATIN"),
        ("ro", "Romanian", "ron", "LATIN"),
        ("ru", "Russian", "rus", "CYRILLIC"),
        ("sa", "Sanskrit", "san", "DEVANAGARI"),
        ("sd", "Sindhi", "snd", "ARABIC"),
        ("si", "Sinhala", "sin", "SINHALA"),
        ("sk", "Slovak", "slk", "LATIN"),
        ("sl", "Slovenian", "slv", "LATIN"),
        ("sn", "Shona", "sna", "LATIN"),
        ("so", "Somali", "som", "LATIN"),
        ("sq", "Albanian", "sqi", "LATIN"),
        ("sr", "Serbian", "srp", "CYRILLIC LATIN"),
        ("su", "Sundanese", "sun", "LATIN"),
        ("sv", "Swedish", "swe", "LATIN"),
        ("sw", "Swahili", "swa", "LATIN"),
        ("ta", "Tamil", "tam", "TAMIL"),
        ("te", "Telugu", "tel", "TELUGU"),
        ("tg", "Tajik", "tgk", "CYRILLIC"),
        ("th", "Thai", "tha", "THAI"),
        ("tk", "Turkmen", "tuk", "LATIN"),
        ("tl", "Tagalog", "tgl", "LATIN"),
        ("tr", "Turkish", "tur", "LATIN"),
        ("tt", "Tatar", "tat", "CYRILLIC"),
        ("uk", "Ukrainian", "ukr", "CYRILLIC"),
        ("ur", "Urdu", "urd", "ARABIC"),
        ("uz", "Uzbek", "uzb", "LATIN"),
        ("vi", "Vietnamese", "vie", "LATIN"),
        ("yi", "Yiddish", "yid", "HEBREW"),
        ("yo", "Yoruba", "yor", "LATIN"),
        ("zh", "Chinese", "zho", "CJK IDEOGRAPHIC"),
    )
}

# Languages written without spaces between words: counted, wrapped and compared by character.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "km", "bo"})

_TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*", re.IGNORECASE)


def base_language(tag: str) -> str:
    """The language of a tag without region or script.

    >>> base_language("pt-BR"), base_language("EN")
    ('pt', 'en')
    """
    return tag.partition("-")[0].lower()


def is_tag(tag: str) -> bool:
    """Whether the text has the form of a BCP 47 tag and its language is one we have a name for."""
    return bool(_TAG.fullmatch(tag)) and base_language(tag) in LANGUAGES


def name_of(tag: str) -> str:
    """English name, or the tag itself."""
    language = LANGUAGES.get(base_language(tag))
    return language.name if language else tag


def iso639_2(tag: str) -> str:
    """The three-letter code that containers store; "und" when we have none."""
    language = LANGUAGES.get(base_language(tag))
    return language.iso639_2 if language else "und"


def share_in_script(text: str, tag: str) -> float:
    """Share of the text's letters that belong to the language's script, by the room they take; 1.0 when it has no letters.

    >>> share_in_script("Привет!", "ru"), share_in_script("Привет!", "en")
    (1.0, 0.0)
    """
    language = LANGUAGES.get(base_language(tag))
    letters = [c for c in text if c.isalpha()]
    if not letters or language is None:
        return 1.0
    return room_of("".join(c for c in letters if unicodedata.name(c, "").startswith(language.script))) / room_of("".join(letters))


def room_of(text: str) -> int:
    """How much a text says, in letters of an alphabet: a Chinese character or a Korean syllable says about as much as three.

    >>> room_of("rainbow"), room_of("彩虹")
    (7, 6)
    """
    return sum(3 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def letters_and_digits(text: str, besides: str = "") -> str:
    """The text with a space for every character that nobody says: only letters with their marks, digits and those `besides` stay.

    >>> letters_and_digits("Добрый день, मित्रो!")
    'Добрый день  मित्रो '
    """
    # Vowel signs are marks, not letters, and joiners are neither: a word of Hindi would fall apart without them.
    return "".join(
        c if c.isalnum() or c in besides or unicodedata.category(c).startswith("M") else "" if unicodedata.category(c) == "Cf" else " "
        for c in text
    )
