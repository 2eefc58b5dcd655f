"""What translators have in common: the family's base class, and what every chat model needs around it to be relied on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from blocks.engine import Engine
from dubbing import terms, translating
from dubbing.errors import EngineRefused
from dubbing.languages import LANGUAGES, base_language, share_in_script
from dubbing.lesson import Termbase, TranslatedLine, Utterance
from dubbing.problems import COMMENTING, LEAST_SCRIPT_SHARE, Doubt, doubts_about, problem_with
from dubbing.translating import Window

READ_AT_ONCE = 12_000  # characters of a transcript: a larger piece gives no better terms, and a failed answer loses more
READING_ATTEMPTS = 2
_FEWEST_TO_SPLIT = 4  # wrong lines: fewer are asked for one by one
_LEAST_READ = 500  # characters: a context that has no room for so many can't be read with


class Translator(Engine):
    """Base of the family.

    To add a translator: a chat model needs only `ChatTranslator.ask`; anything else implements `translate` and `refusal`. Enter the class
    in `TRANSLATORS`. A line that stays wrong is returned with a flag, never raised: one bad line must not stop a lesson.
    """

    listens: ClassVar[bool] = False  # whether it works from the sound, which then is an input of its cache keys
    shortens: ClassVar[bool] = False  # whether it can say a line again in fewer characters
    heeds_budgets: ClassVar[bool] = False  # whether it translates well when it is told beforehand how many characters there is time for

    @property
    def model_name(self) -> str:
        """Which model translates, for the report."""
        return self.engine_name

    @property
    def reads(self) -> bool:
        """Whether it reads a whole transcript before it translates (`read`)."""
        return False

    def refusal(self, source: str, target: str) -> str | None:
        """Why this engine can't translate between two languages, or None."""
        for tag in (source, target):
            if base_language(tag) not in LANGUAGES:
                return f"{self.engine_name} doesn't know the language {tag}"
        return None

    def windows(self, utterances: Sequence[Utterance]) -> list[Window]:
        """How it wants the lines grouped."""
        return translating.windows(utterances)

    def pieces(self, utterances: Sequence[Utterance]) -> list[tuple[Utterance, ...]]:
        """How much of a transcript it reads at once."""
        return []

    def read(self, piece: Sequence[Utterance], source: str, target: str) -> Termbase:
        """What a piece of a transcript is about, and its terms. Nothing, when the model can't tell."""
        return Termbase()

    def condense(self, summaries: Sequence[str], target: str) -> str:
        """One summary of a lesson from those of its pieces."""
        return " ".join(summaries)

    def rest(self) -> None:
        """At the end of a stage: give back what other stages need more. A server's GPU is for one model at a time."""

    @abstractmethod
    def translate(self, window: Window, source: str, target: str, recording: Path | None = None) -> list[TranslatedLine]:
        """One line for each that the window wants, in order.

        Args:
            recording: the lesson's sound, for engines that listen.
        """


class RequestTooLong(EngineRefused):
    """A request that the model's context can't hold: a smaller one may be answered."""


class ChatTranslator(Translator):
    """Any model that answers in JSON as told.

    Every line is validated. Wrong ones go up a ladder: they are asked for again with what was wrong, in halves, one by one, and at last of
    another model. What stays wrong is flagged. Doubtful lines are asked for once more and then taken as they are.
    """

    shortens: ClassVar[bool] = True
    heeds_budgets: ClassVar[bool] = True

    reads_ahead: bool = Field(default=True, description="Read the whole transcript first, for a summary and a list of terms.")
    variants: bool = Field(default=False, description="Ask for a short, a normal and a long wording of each line; time decides.")
    fallback: Translator | None = Field(default=None, description="Translates the lines that stay wrong.")

    @field_validator("fallback")
    @classmethod
    def _fallback_reads(cls, fallback: Translator | None) -> Translator | None:
        if fallback and fallback.listens:
            raise ValueError(f"fallback: {fallback.engine_name} works from the sound, and only lines are handed on")
        return fallback

    @property
    def reads(self) -> bool:
        return self.reads_ahead

    @abstractmethod
    def ask(self, instructions: str, request: str, schema: dict[str, Any]) -> str:
        """The model's answer to a request, as text that should follow the JSON schema.

        Raises:
            RequestTooLong: for its context.
            EngineRefused: it won't answer this.
            PassingFault: it can't be reached, now.
            BadSetting: it is not there, or doesn't let us in.
        """

    @abstractmethod
    def room_to_read(self) -> int:
        """Characters of a transcript that the context has room for, beside instructions and answer."""

    def rest(self) -> None:
        if self.fallback:
            self.fallback.rest()

    def close(self) -> None:
        super().close()
        if self.fallback:
            self.fallback.close()

    def translate(self, window: Window, source: str, target: str, recording: Path | None = None) -> list[TranslatedLine]:
        ladder = _Ladder(self, window, source, target)
        ladder.climb()
        return ladder.lines()

    def pieces(self, utterances: Sequence[Utterance]) -> list[tuple[Utterance, ...]]:
        return terms.pieces(utterances, max(_LEAST_READ, min(READ_AT_ONCE, self.room_to_read())))

    def read(self, piece: Sequence[Utterance], source: str, target: str) -> Termbase:
        text = "\n".join(line.text for line in piece)
        for _ in range(READING_ATTEMPTS):
            try:
                answer = self.ask(terms.reading_instructions(source, target), text, terms.reading_schema())
            except RequestTooLong:
                if len(piece) < 2:
                    break
                middle = len(piece) // 2
                halves = [self.read(half, source, target) for half in (piece[:middle], piece[middle:])]
                summary = self.condense([half.summary for half in halves if half.summary], target)
                return Termbase(summary=summary, terms=terms.together(*(half.terms for half in halves)))
            except EngineRefused:
                continue
            found = terms.understood(translating.parse_object(answer), text, source, target)
            if found.summary or found.terms:
                return found
        return Termbase()

    def condense(self, summaries: Sequence[str], target: str) -> str:
        if len(summaries) < 2:
            return "".join(summaries)
        for _ in range(READING_ATTEMPTS):
            try:
                answer = self.ask(terms.condensing_instructions(target), "\n".join(summaries), terms.condensing_schema())
            except EngineRefused:
                break
            if summary := terms.understood(translating.parse_object(answer), "", target, target).summary:
                return summary
        return summaries[0]


class _Ladder:
    """One window's way to a line for each that is wanted."""

    def __init__(self, translator: ChatTranslator, window: Window, source: str, target: str) -> None:
        self._translator, self._window, self._source, self._target = translator, window, source, target
        self._problems: dict[int, str] = {}  # of the last answers, by line
        self._best: dict[int, TranslatedLine] = {}  # what is taken as things stand
        self._doubts: dict[int, tuple[Doubt, ...]] = {}  # about the lines in `_best`
        self._sound: set[int] = set()  # lines in `_best` with which nothing is wrong but doubts
        self._attempts = dict.fromkeys(window.wanted, 0)
        self._too_long: set[int] = set()  # lines of the requests that were refused for their length

    def climb(self) -> None:
        self._attempt(self._window.wanted, "window")
        again = [n for n in self._window.wanted if n not in self._too_long and (n in self._problems or self._doubts.get(n))]
        if again:
            self._attempt(again, "again")
        wrong = sorted(self._problems)
        if len(wrong) >= _FEWEST_TO_SPLIT:
            middle = (len(wrong) + 1) // 2
            for half in (wrong[:middle], wrong[middle:]):
                self._attempt(half, "split")
        for n in sorted(self._problems):
            if not (n in self._too_long and len(self._window.wanted) == 1):
                self._attempt([n], "line")
        fallback = self._translator.fallback
        if self._problems and fallback and fallback.refusal(self._source, self._target) is None:
            self._ask_fallback(fallback)

    def lines(self) -> list[TranslatedLine]:
        """The outcome for each line that was wanted."""
        lines = []
        for n in self._window.wanted:
            best = self._best.get(n) or TranslatedLine(id=self._window.lines[n - 1].id, text="")
            flags = [doubt.text for doubt in self._doubts.get(n, ()) if doubt.flagged]
            if n in self._problems and n not in self._best:
                flags = [self._problems[n]]
            lines.append(
                best.model_copy(update={"flags": (*best.flags, *(f"translation: {flag}" for flag in flags)), "attempts": self._attempts[n]})
            )
        return lines

    def _attempt(self, wanted: Sequence[int], rung: str) -> None:
        variants = self._translator.variants and not self._window.strict
        asked = translating.prompt(self._window, wanted, self._source, self._target, self._complaints(), variants)
        for n in wanted:
            self._attempts[n] += 1
        try:
            answer = self._translator.ask(asked.instructions, asked.request, translating.answer_schema(self._window, wanted, variants))
        except EngineRefused as refused:
            for n in wanted:
                if n not in self._sound:
                    self._problems[n] = str(refused)
            if isinstance(refused, RequestTooLong):
                self._too_long.update(wanted)
            return
        self._too_long.difference_update(wanted)
        found = translating.parse_answer(answer, wanted)
        for n in wanted:
            self._judge(n, found.get(n, ()), rung, self._others(n, {m: said[0] for m, said in found.items()}))
        self._look_for_merged()

    def _complaints(self) -> dict[int, str]:
        return {n: "; ".join(doubt.text for doubt in doubts) for n, doubts in self._doubts.items() if doubts} | self._problems

    def _others(self, n: int, found: dict[int, str]) -> list[str]:
        """Translations of the other lines, but of those that have the same words."""
        lines = self._window.lines
        said = {**self._window.known, **{m: line.text for m, line in self._best.items()}, **found}
        return [text for m, text in said.items() if m != n and lines[m - 1].text != lines[n - 1].text]

    def _judge(self, n: int, wordings: Sequence[str], rung: str, others: Sequence[str]) -> None:
        """Take the best of a line's wordings, unless there is a better one already."""
        line = self._window.lines[n - 1]
        budget = self._window.budgets.get(n)
        problems = [self._problem(wording, n, others) for wording in wordings]
        good = [wording for wording, problem in zip(wordings, problems, strict=True) if problem is None]
        made: dict[str, Any] = {"id": line.id, "rung": rung, "model": self._translator.model_name}
        if good:
            chosen = _chosen(good, budget)
            own_terms = terms.occurring(self._window.terms, line.text, self._source)
            doubts = doubts_about(chosen, line.text, self._source, self._target, own_terms, budget, self._window.names)
            self._problems.pop(n, None)
            if n not in self._sound or _weight(chosen, doubts) < _weight(self._best[n].text, self._doubts[n]):
                variants = tuple(sorted(good, key=len)) if len(good) > 1 else ()
                self._best[n] = TranslatedLine(text=chosen, variants=variants, **made)
                self._doubts[n] = doubts
                self._sound.add(n)
            return
        if n in self._sound:
            return  # it was asked for again because of a doubt, and what came was worse
        problem = self._problems[n] = (problems[len(problems) // 2] if problems else None) or "it is missing"
        # Of answers that all are wrong the last that can be said is kept: it was given knowing what was wrong before.
        wording = wordings[len(wordings) // 2] if wordings else None
        if wording and problem != COMMENTING and _speakable(wording, self._target):
            self._best[n] = TranslatedLine(text=wording, flags=(f"translation: {problem}",), **made)

    def _problem(self, wording: str, n: int, others: Sequence[str]) -> str | None:
        problem = problem_with(wording, self._window.lines[n - 1].text, self._source, self._target, others)
        if problem is None and self._window.strict and len(wording) > self._window.budgets.get(n, len(wording)):
            problem = f"it is too long ({len(wording)} characters)"
        return problem

    def _look_for_merged(self) -> None:
        """A line that was taken may turn out to say one that came later too."""
        for n in sorted(self._sound):
            problem = self._problem(self._best[n].text, n, self._others(n, {}))
            if problem is not None:
                self._sound.discard(n)
                self._problems[n] = problem
                self._best[n] = self._best[n].model_copy(update={"flags": (f"translation: {problem}",)})
                self._doubts.pop(n, None)

    def _ask_fallback(self, fallback: Translator) -> None:
        wrong = sorted(self._problems)
        rest = self._window._replace(known={**self._window.known, **{n: self._best[n].text for n in self._sound}})
        for n, line in zip(wrong, fallback.translate(rest, self._source, self._target), strict=True):
            self._attempts[n] += line.attempts
            if line.text and not line.flags:
                self._best[n] = line.model_copy(update={"rung": "fallback"})
                self._problems.pop(n)
                self._doubts.pop(n, None)
                self._sound.add(n)


def _chosen(wordings: Sequence[str], budget: int | None) -> str:
    """Of short, normal and long wordings the one that the time is for: the fullest that fits, else the shortest; without a limit the
    normal one."""
    ordered = sorted(wordings, key=len)
    if budget is None:
        return ordered[len(ordered) // 2]
    return ([wording for wording in ordered if len(wording) <= budget] or ordered[:1])[-1]


def _weight(text: str, doubts: Sequence[Doubt]) -> tuple[int, int]:
    """Of two wordings the one with fewer doubts is better, then the shorter, when length is the doubt."""
    return len(doubts), len(text) if doubts else 0


def _speakable(text: str, target: str) -> bool:
    """Whether a voice of the target language could say it: a doubtful line is better said than missing."""
    return any(c.isalnum() for c in text) and share_in_script(text, target) >= LEAST_SCRIPT_SHARE
