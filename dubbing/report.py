"""The page a person opens: what was made, how good it is, and which lines need an ear.

One HTML file that asks nothing of a server: it works from a folder on disk, with the media beside it, and without a network. All texts are
somebody else's: they are escaped, never trusted.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from dubbing.languages import base_language
from dubbing.mixing import HIGHEST_TRUE_PEAK
from dubbing.placement import ACCEPTABLE_RATE, FREE_RATE, HIGHEST_RATE, LATE_DRIFT
from dubbing.subtitles import clean, cues_of_texts
from dubbing.verification import DOUBTFUL_ERROR_RATE, LOUDNESS_TOLERANCE
from dubbing.wording import ENGLISH, Wording

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Template
    from markupsafe import Markup
    from matplotlib.axes import Axes

HIGHEST_WORD_ERROR_RATE = 0.15  # of all words: a small recogniser mishears a clean voice in one word of ten

# Pictures

QUIETEST = -60.0  # dBFS: what is quieter is drawn there
WIDTH, HEIGHT = 10.0, 2.4  # inches, a hundred pixels each
NARROWEST = 1 / 700  # of the lesson: a line is drawn no narrower, or it can't be seen
MANY = 150  # lines: narrow bars need a full colour
MOMENTS = 700  # levels drawn; more make two curves one blot

_DUBBED, _ORIGINAL = "#3b82f6", "#d97706"
_GOOD, _FAST, _FASTER, _TOO_FAST = "#2f9e6e", "#3b82f6", "#d08700", "#d64545"
_INK = "#010203"  # stands for the colour of text, which the picture takes from the reader's light or dark mode
_Block = tuple[float, float, float, float]  # left, right, foot, top
_MODES = "<style>svg{color:#3d444d}@media(prefers-color-scheme:dark){svg{color:#b6bfca}}</style>"


def plots(timeline: Mapping[str, Any], original: np.ndarray, dubbed: np.ndarray) -> dict[str, bytes]:
    """SVG pictures: `levels`, `rates` and `drift`, all over the lesson's time.

    `original` and `dubbed` are RMS levels in dBFS, evenly spaced over the lesson. Equal input gives equal bytes.
    """
    lines = [line for line in timeline["lines"] if line["end"] > line["start"]]
    duration = max([timeline["duration"], *(line["end"] for line in lines)]) or 1.0
    shade = 0.4 if len(lines) <= MANY else 0.9
    spans = [(line["start"], max(line["end"], line["start"] + duration * NARROWEST)) for line in lines]

    def levels(axes: Axes) -> None:
        import numpy as np

        _blocks(axes, [(start, end, QUIETEST, 0.0) for start, end in spans], _DUBBED, alpha=0.12, label="dubbed lines")
        for level, colour, label in ((original, _ORIGINAL, "original"), (dubbed, _DUBBED, "dubbed")):
            decibels = np.clip(np.nan_to_num(np.asarray(level, dtype=float), nan=QUIETEST), QUIETEST, 0.0)
            if len(decibels) > MOMENTS:
                decibels = np.array([part.mean() for part in np.array_split(decibels, MOMENTS)])
            moments = np.linspace(0.0, duration, len(decibels))
            axes.plot(moments, decibels, color=colour, linewidth=1.0, alpha=0.85, label=label)
        axes.set_ylim(QUIETEST, 0.0)
        axes.set_ylabel("level, dBFS")

    def rates(axes: Axes) -> None:
        highest = max([HIGHEST_RATE, *(line["rate"] for line in lines)])
        lowest = min([1.0, *(line["rate"] for line in lines)])
        classes: dict[str, list[_Block]] = {_GOOD: [], _FAST: [], _FASTER: [], _TOO_FAST: []}
        for (start, end), line in zip(spans, lines, strict=True):
            classes[_rate_colour(line["rate"])].append((start, end, 1.0, line["rate"]))
        for colour, blocks in classes.items():
            _blocks(axes, blocks, colour, alpha=shade, edge=True)
        axes.axhline(1.0, color=_INK, linewidth=0.8, alpha=0.5)
        for limit, colour in ((FREE_RATE, _FAST), (ACCEPTABLE_RATE, _FASTER), (HIGHEST_RATE, _TOO_FAST)):
            axes.axhline(limit, color=colour, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_yticks([1.0, FREE_RATE, ACCEPTABLE_RATE, HIGHEST_RATE])
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.2f}")
        axes.set_ylim(min(0.93, lowest - 0.02), highest + 0.03)
        axes.set_ylabel("speaking rate")

    def drift(axes: Axes) -> None:
        drifts = [line["drift"] for line in lines]
        near: list[_Block] = []
        late: list[_Block] = []
        for (start, end), value in zip(spans, drifts, strict=True):
            (late if abs(value) > LATE_DRIFT else near).append((start, end, 0.0, value))
        _blocks(axes, near, _GOOD, alpha=shade, edge=True)
        _blocks(axes, late, _TOO_FAST, alpha=shade, edge=True)
        axes.axhline(0.0, color=_INK, linewidth=0.8, alpha=0.5)
        axes.axhline(LATE_DRIFT, color=_TOO_FAST, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_ylim(min([-0.3, *drifts]) * 1.15, max([LATE_DRIFT, *drifts]) * 1.15)
        axes.set_ylabel("drift, seconds")

    return {"levels": _picture(levels, duration), "rates": _picture(rates, duration), "drift": _picture(drift, duration)}


def _rate_colour(rate: float) -> str:
    limits = ((FREE_RATE, _GOOD), (ACCEPTABLE_RATE, _FAST), (HIGHEST_RATE, _FASTER))
    return next((colour for limit, colour in limits if rate <= limit + 1e-9), _TOO_FAST)


def _blocks(axes: Axes, blocks: Sequence[_Block], colour: str, alpha: float, edge: bool = False, label: str | None = None) -> None:
    """Rectangles as one shape, with a line along their tops: a thousand lines stay a small picture."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    if not blocks:
        return
    around = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY]
    corners = [
        corner for left, right, foot, top in blocks for corner in ((left, foot), (left, top), (right, top), (right, foot), (left, foot))
    ]
    axes.add_patch(PathPatch(Outline(corners, around * len(blocks)), facecolor=colour, alpha=alpha, linewidth=0, label=label))
    if edge:
        tops = [corner for left, right, _, top in blocks for corner in ((left, top), (right, top))]
        path = Outline(tops, [Outline.MOVETO, Outline.LINETO] * len(blocks))
        axes.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=1.6))


def _picture(draw: Callable[[Axes], None], duration: float) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.hashsalt": "coursedub",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), _INK),
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH, HEIGHT))
        axes = figure.add_axes((0.065, 0.115, 0.92, 0.765))  # the same in every picture, so that moments lie above each other
        draw(axes)
        axes.set_xlim(0.0, duration)
        axes.xaxis.set_major_formatter(lambda seconds, _: clock(seconds))
        axes.locator_params(axis="x", nbins=12, steps=[1, 1.2, 1.5, 2, 3, 6, 10])
        axes.grid(axis="y", alpha=0.15, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0.2, ncols=3, frameon=False, fontsize=9)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    drawing = svg.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(_INK, "currentColor")
    head, _, body = drawing.partition(">")
    return f"{head}>{_MODES}{body}".encode()


# The page


class Tile(NamedTuple):
    """A key figure."""

    name: str
    value: str
    limit: str
    state: str  # "ok", "attention" or "unknown"


class Figure(NamedTuple):
    """A measurement of one line."""

    name: str
    value: str
    attention: bool


class Row(NamedTuple):
    """A line as the page shows it."""

    number: int
    speaker: str
    source_start: float
    source_time: str
    source_text: str
    start: float
    end: float
    time: str
    translation: str
    said_with: int | None  # the number of the line that also says this one's words
    heard: str
    voice: str  # where it is not the usual one
    figures: tuple[Figure, ...]
    flags: tuple[str, ...]
    spoken: bool


class Download(NamedTuple):
    """One entry of the files' list: a single file, or one thing in several formats."""

    label: str
    formats: tuple[tuple[str, str], ...]  # name, address


def page(
    timeline: Mapping[str, Any],
    report: Mapping[str, Any],
    files: Mapping[str, Any],
    plots: Mapping[str, str],
    words: Wording = ENGLISH,
) -> str:
    """`index.html` of a lesson's output folder.

    `timeline` and `report` are the contents of the two JSON files beside it. `files` names files relative to it: the players' `video`
    (which is sound alone where `audio_only` is set), `original_audio` and `thumbnail`, and downloads. `plots` are the SVG texts of
    `plots`, which become part of the page. `words` are those of whoever reads it.
    """
    rows = _rows(timeline["lines"], words)
    source, target = timeline["source_language"], timeline["target_language"]
    checks = report.get("file") or {}
    return template("report.html.j2").render(
        words=words,
        name=timeline["lesson"],
        source=source,
        target=target,
        source_name=words.name_of(source),
        target_name=words.name_of(target),
        duration=clock(timeline["duration"]),
        rows=rows,
        flagged=sum(bool(row.flags) for row in rows),
        tiles=tiles(checks, words),
        file_flags=[words.told(flag) for flag in checks.get("flags") or ()],
        notes=[words.told(note) for note in report.get("notes") or ()],
        engines=[(words.told(family), words.told(engine)) for family, engine in (report.get("engines") or {}).items()],
        audio_only=bool(files.get("audio_only")),
        video=_address(files.get("video")),
        original=_address(files.get("original_audio")),
        poster=_address(files.get("thumbnail")),
        downloads=_downloads(files, words),
        plots=[(words(title), _picture_address(_relabelled(plots[key], words))) for key, title in _PLOT_TITLES.items() if key in plots],
        captions=_embedded(_captions(timeline, words)),
    )


def template(name: str) -> Template:
    """One of the pages' templates: whatever is put into it is text, that can be shown."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
    )
    environment.filters["capital"] = _capital
    environment.filters["digest"] = lambda script: base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()
    return environment.get_template(name)


_PLOT_TITLES = {"levels": "Level of the original and the dubbed track", "rates": "Speaking rate", "drift": "Drift from the lecturer"}


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours from the first.

    >>> clock(7.9), clock(754), clock(3754)
    ('0:07', '12:34', '1:02:34')
    """
    whole = int(max(seconds, 0.0))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def tiles(file: Mapping[str, Any], words: Wording = ENGLISH) -> list[Tile]:
    """The key figures of the file checks, each held against its limit."""

    def tile(name: str, key: str, form: Callable[[float], str], limit: str, good: Callable[[float], bool]) -> Tile:
        value = file.get(key)
        if value is None or not math.isfinite(value):
            return Tile(name, words("not measured"), limit, "unknown")
        return Tile(name, form(value), limit, "ok" if good(value) else "attention")

    target = file.get("loudness_target")
    return [
        tile(
            words("Loudness"),
            "integrated_loudness",
            lambda value: f"{words.number(value, '.1f')} LUFS",
            "" if target is None else words("target {value:.1f}", value=target),
            lambda value: target is not None and abs(value - target) <= LOUDNESS_TOLERANCE,
        ),
        tile(
            words("True peak"),
            "true_peak",
            lambda value: f"{words.number(value, '.1f')} dBTP",
            words("at most {value:.0f}", value=HIGHEST_TRUE_PEAK),
            lambda value: value <= HIGHEST_TRUE_PEAK,
        ),
        tile(
            words("Largest drift"),
            "largest_drift",
            lambda value: words("{value:.2f} s", value=value),
            words("at most {value:.0f} s", value=LATE_DRIFT),
            lambda value: abs(value) <= LATE_DRIFT,
        ),
        tile(
            words("Fastest line"),
            "largest_rate",
            lambda value: f"{words.number(value, '.2f')}×",
            words("acceptable to {value:.2f}×", value=ACCEPTABLE_RATE),
            lambda value: value <= ACCEPTABLE_RATE + 1e-9,
        ),
        tile(
            words("Word error rate"),
            "word_error_rate",
            lambda value: f"{words.number(100 * value, '.1f')} %",
            words("at most {value:.0f} %", value=100 * HIGHEST_WORD_ERROR_RATE),
            lambda value: value <= HIGHEST_WORD_ERROR_RATE,
        ),
        tile(words("Overlaps"), "overlaps", lambda value: f"{value:.0f}", words("none"), lambda value: value == 0),
    ]


def _rows(lines: Sequence[Mapping[str, Any]], words: Wording) -> list[Row]:
    numbers = {line["id"]: number for number, line in enumerate(lines, start=1)}
    several_speakers = len({line["speaker"] for line in lines}) > 1
    voices = Counter(_voice(line, words) for line in lines if line["translation"])
    usual = voices.most_common(1)[0][0] if voices else None
    rows = []
    for number, line in enumerate(lines, start=1):
        checks = line.get("checks") or {}
        spoken = line["end"] > line["start"]
        unusual = spoken and _voice(line, words) != usual
        rows.append(
            Row(
                number=number,
                speaker=(line["speaker"] or "") if several_speakers else "",
                source_start=round(line["source_start"], 3),
                source_time=_span(line["source_start"], line["source_end"], words),
                source_text=line["source_text"],
                start=round(line["start"], 3),
                end=round(line["end"], 3),
                time=_span(line["start"], line["end"], words),
                translation=line["translation"],
                said_with=numbers.get(line["said_with"]),
                heard=checks.get("heard") or "",
                voice=_voice(line, words) if unusual else "",
                figures=(*(_figures(line, checks, words) if spoken else ()), *_ladder(line, words)),
                flags=tuple(map(words.told, line["flags"])),
                spoken=spoken,
            )
        )
    return rows


_RUNG_NAMES = {
    "window": "the first answer stays",
    "again": "told what was wrong",
    "split": "in a smaller piece",
    "line": "alone",
    "fallback": "by the other model",
}


def _ladder(line: Mapping[str, Any], words: Wording) -> Iterable[Figure]:
    """How the translation was come by, where it was not at the first request."""
    translated = line.get("translated") or {"attempts": 1}
    if translated["attempts"] > 1:
        how = words(_RUNG_NAMES.get(translated["rung"], "in vain"))
        yield Figure(words("translated"), words("in {n} requests, {how}", n=translated["attempts"], how=how), False)


def _voice(line: Mapping[str, Any], words: Wording) -> str:
    if line.get("cloned_from"):
        return words("{voice}, cloned from {where} ({engine})", voice=line["voice"], where=line["cloned_from"], engine=line["engine"])
    return f"{line['voice']} ({line['engine']})"


def _figures(line: Mapping[str, Any], checks: Mapping[str, Any], words: Wording) -> Iterable[Figure]:
    yield Figure(words("rate"), f"{words.number(line['rate'], '.2f')}×", line["rate"] > ACCEPTABLE_RATE + 1e-9)
    yield Figure(words("drift"), words("{value:.2f} s", value=line["drift"]), abs(line["drift"]) > LATE_DRIFT)
    errors = checks.get("word_error_rate")
    if errors is not None:
        yield Figure(words("word errors"), f"{100 * errors:.0f} %", errors > DOUBTFUL_ERROR_RATE)
    if line["overflow"] > 0:
        yield Figure(words("runs over"), words("{value:.2f} s", value=line["overflow"]), True)


def _span(start: float, end: float, words: Wording) -> str:
    def tenths(seconds: float) -> str:
        rounded = round(max(seconds, 0.0) * 10)
        return f"{clock(rounded / 10)}{words.decimal_mark}{rounded % 10}"

    return f"{tenths(start)} \N{EN DASH} {tenths(end)}"


_SUBTITLE_FORMATS = ("srt", "vtt", "ass")


def _downloads(files: Mapping[str, Any], words: Wording) -> list[Download]:
    def single(key: str, label: str) -> list[Download]:
        address = _address(files.get(key))
        return [Download(label, ((label, address),))] if address else []

    languages = dict.fromkeys(
        language for key in files for kind, _, language in [key.partition("_")] if kind in _SUBTITLE_FORMATS and language
    )
    subtitles = [
        Download(
            words("{language} subtitles", language=words.name_of(language)),
            tuple((kind.upper(), address) for kind in _SUBTITLE_FORMATS if (address := _address(files.get(f"{kind}_{language}")))),
        )
        for language in languages
    ]
    return [
        *single("video", words("Dubbed sound") if files.get("audio_only") else words("Dubbed video")),
        *single("original_audio", words("Original sound")),
        *subtitles,
        *single("timeline", words("Timeline (JSON)")),
        *single("table", words("Lines (CSV)")),
        *single("terms", words("Terms (CSV)")),
        *single("report", words("Report (JSON)")),
    ]


def _address(name: str | None) -> str:
    """A relative address that can only mean a file beside the page, whatever its name looks like."""
    return f"./{quote(name, errors='surrogateescape')}" if name else ""


def _picture_address(svg: str) -> str:
    """The picture itself as an address: as an image its names and styles can't meet the page's, and a script in it would not run."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


_LABEL = re.compile(r"(<text [^>]*>)([^<]*)(</text>)")


def _relabelled(svg: str, words: Wording) -> str:
    """A picture with its labels in the reader's language: a stage drew it, and what a stage makes is the same for everybody."""

    def label(found: re.Match[str]) -> str:
        text = html.unescape(found[2])
        shown = words.marked(text) if re.fullmatch(r"\W?\d+\.\d+", text) else words.told(text)
        return f"{found[1]}{html.escape(shown, quote=False)}{found[3]}"

    return _LABEL.sub(label, svg)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _captions(timeline: Mapping[str, Any], words: Wording) -> list[dict[str, Any]]:
    """What the players show: a page that lies on disk may not load subtitle files."""
    lines, duration = timeline["lines"], timeline["duration"]
    tracks = (
        ("dubbed", timeline["target_language"], [(line["start"], line["end"], line["translation"]) for line in lines]),
        ("original", timeline["source_language"], [(line["source_start"], line["source_end"], line["source_text"]) for line in lines]),
    )
    return [
        {
            "of": of,
            "language": base_language(language),
            "label": _capital(words.name_of(language)),
            "cues": cues_of_texts(texts, language, duration),
        }
        for of, language, texts in tracks
    ]


def _embedded(data: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element or begin a comment."""
    from markupsafe import Markup

    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _printable(value: Any) -> Any:
    """What the template prints: somebody's text without control characters and half surrogates, all else as it is."""
    return clean(value) if type(value) is str else value
