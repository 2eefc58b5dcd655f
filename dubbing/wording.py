"""The pages in the reader's language.

All that the program says is English. On a page each of its texts is a template, which is its own key in the table of another language:
"{n} {n:line|lines}" stands there with the three forms that Russian has. What was put together elsewhere, a flag say, is told in the other
language by the template that it fits; what fits none is shown as it is. Files for machines stay English.

To add a language: a module like `dubbing.russian`, and its line in `WORDINGS`.
"""

from __future__ import annotations

import functools
import os
import re
import string
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from dubbing import languages, russian
from dubbing.errors import BadSetting

ReportLanguage = Literal["en", "ru"]

_NONE: Mapping[str, str] = MappingProxyType({})
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_LONGEST = 1000  # characters of a sentence that is looked up: an engine may have quoted a whole page
_DEEPEST = 4  # sentences within a sentence


class Wording(NamedTuple):
    """How a language says it."""

    language: ReportLanguage
    form: Callable[[float], int]  # which of its forms a noun has after a number
    decimal_mark: str = "."
    texts: Mapping[str, str] = _NONE  # of the pages, by the English ones
    sentences: Mapping[str, str] = _NONE  # that are put together elsewhere, likewise
    names: Mapping[str, str] = _NONE  # of languages, by tag

    def __call__(self, text: str, **values: object) -> str:
        """A text of a page.

        >>> WORDINGS["ru"]("{n} {n:line|lines}", n=3), WORDINGS["en"]("{n} {n:line|lines}", n=3)
        ('3 реплики', '3 lines')
        """
        return self._filled(self.texts.get(text, text), values)

    def told(self, sentence: str) -> str:
        """A sentence that was put together elsewhere, or the same where it is unknown.

        >>> WORDINGS["ru"].told("translation: it lost the number 42"), WORDINGS["ru"].told("speech: the dog ate it")
        ('перевод: потеряно число 42', 'speech: the dog ate it')
        """
        return self._told(sentence) or sentence

    def number(self, value: float, form: str = "") -> str:
        """
        >>> WORDINGS["ru"].number(-1.5, ".2f")
        '−1,50'
        """
        return self.marked(format(value, form))

    def marked(self, number: str) -> str:
        """A number in digits as the language writes it."""
        return number.replace("-", "\N{MINUS SIGN}").replace(".", self.decimal_mark)

    def name_of(self, tag: str) -> str:
        """Name of a language, or the tag itself."""
        return self.names.get(languages.base_language(tag)) or languages.name_of(tag)

    def _filled(self, template: str, values: Mapping[str, object]) -> str:
        return template.format_map({name: _Value(value, self) for name, value in values.items()})

    def _told(self, sentence: str, deep: int = 0) -> str | None:
        if not self.sentences or deep > _DEEPEST:
            return None
        parts = [self._told(part, deep + 1) for part in sentence.split("; ")] if "; " in sentence else [None]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return "; ".join(known)
        if len(sentence) > _LONGEST:
            return None
        for pattern, template in _patterns(self.language):
            if found := pattern.fullmatch(sentence):
                values = {name: self._part(name, value, deep) for name, value in found.groupdict().items()}
                if None not in values.values():
                    return self._filled(template, values)
        return None

    def _part(self, name: str, value: str, deep: int) -> str | None:
        """What a template's place holds: `what` is a sentence that must be known, `why` one that may be, `language` an English name."""
        if name == "what":
            return self._told(value, deep + 1)
        if name == "language":
            return self.names.get(_tags().get(value, ""))
        return (self._told(value, deep + 1) if name == "why" else None) or value


class _Value(NamedTuple):
    """What is filled in: with forms of a noun in place of a format it is the one that goes with the number."""

    value: object
    wording: Wording

    def __format__(self, form: str) -> str:
        if "|" in form:
            forms, number = form.split("|"), str(self.value)
            return forms[min(self.wording.form(float(number)) if _NUMBER.fullmatch(number) else len(forms), len(forms) - 1)]
        text = format(self.value, form)
        return self.wording.marked(text) if _NUMBER.fullmatch(text) else text


@functools.cache
def _patterns(language: ReportLanguage) -> list[tuple[re.Pattern[str], str]]:
    return [(_pattern(template), told) for template, told in WORDINGS[language].sentences.items()]


def _pattern(template: str) -> re.Pattern[str]:
    """What a filled template looks like."""
    parts = [
        re.escape(literal) + (f"(?P<{field}>.+?)" if field is not None else "")
        for literal, field, _, _ in string.Formatter().parse(template)
    ]
    return re.compile("".join(parts), re.DOTALL)


@functools.cache
def _tags() -> dict[str, str]:
    return {language.name: tag for tag, language in languages.LANGUAGES.items()}


ENGLISH = Wording("en", form=lambda number: int(number != 1))
RUSSIAN = Wording("ru", russian.form, ",", russian.TEXTS, russian.SENTENCES, russian.LANGUAGES)
WORDINGS: dict[str, Wording] = {"en": ENGLISH, "ru": RUSSIAN}


def wording(language: str | None) -> Wording:
    """
    Args:
        language: when empty the one of COURSEDUB_REPORT_LANGUAGE, else English.

    Raises:
        BadSetting: nothing is written in it.
    """
    for field, chosen in (("report_language", language), ("COURSEDUB_REPORT_LANGUAGE", os.environ.get("COURSEDUB_REPORT_LANGUAGE"))):
        if chosen:
            if chosen not in WORDINGS:
                raise BadSetting(f"{field} {chosen}: must be one of {', '.join(WORDINGS)}")
            return WORDINGS[chosen]
    return ENGLISH
