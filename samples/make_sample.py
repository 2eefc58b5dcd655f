#!/usr/bin/env python3
"""Make the sample lesson: a short Russian talk on rainbows, with slides and quiet music.

    python samples/make_sample.py

writes `lesson_ru.mp4` (1280x720, 25 fps, H.264 + AAC stereo) and `lesson_ru.json` (every sentence with the second
it starts and ends, the truth that recognition is measured against) beside this file.

System packages (Debian main):  apt-get install festival festvox-ru fonts-paratype ffmpeg
Python packages:                numpy scipy soundfile Pillow

What is in it, and whose it is
- Text, slides, diagrams and music are our own work, made by this script.
- Voice: `msu_ru_nsh_clunits` of festvox-ru, (c) 2005 Nickolay V. Shmyrev, a BSD-like licence: use, copying,
  modification and sale are free if the copyright notice stays and the author's name is not used to endorse.
- Letters: PT Sans, (c) 2009 ParaType Ltd, ParaType Free Font Licence. The font itself is not passed on.

The same packages give the same files: nothing is drawn at random without a fixed seed.
"""

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from PIL import Image, ImageDraw, ImageFont
from scipy.signal import resample_poly

HERE = Path(__file__).resolve().parent
FONTS = Path("/usr/share/fonts/truetype/paratype")
VOICE = "msu_ru_nsh_clunits"

WIDTH, HEIGHT, FPS = 1280, 720, 25
SAMPLE_RATE = 48_000  # Hz
VOICE_RATE = 16_000  # Hz, what this voice was recorded at

LEAD_IN, TAIL = 0.6, 1.2  # seconds of picture and music before the first word and after the last
SLIDE_FADE = 0.4  # seconds; lies inside the pause between two slides
SPEECH_DBFS = -20.0  # RMS while somebody speaks: leaves 17 dB for the peaks of this voice
MUSIC_BELOW_SPEECH = 20.0  # dB: heard in the pauses, out of the way of recognition
SILENCE_DB = -42.0  # below a sentence's loudest 10 ms this is room, not voice

Colour = tuple[int, int, int]
Point = tuple[float, float]
Path2D = list[Point]

BACKGROUND: Colour = (13, 22, 43)
PANEL: Colour = (22, 36, 66)
INK: Colour = (240, 244, 252)
SOFT: Colour = (169, 186, 217)
SUN: Colour = (255, 206, 84)
WATER: Colour = (60, 122, 190)
DEEP_WATER: Colour = (28, 62, 112)
RAIN: Colour = (84, 128, 196)
CLOUD: Colour = (128, 146, 182)
MEADOW: Colour = (36, 92, 84)
RAINBOW: list[Colour] = [(236, 72, 72), (245, 146, 52), (248, 214, 72), (92, 196, 98), (84, 190, 232), (76, 118, 232), (156, 92, 222)]
RAINBOW_NAMES = ["красный", "оранжевый", "жёлтый", "зелёный", "голубой", "синий", "фиолетовый"]


@dataclass(frozen=True)
class Sentence:
    """One sentence of the talk. `text` is what a reader sees; `spoken` is the same for the voice: numbers in words, `+` before a
    stressed vowel wherever that was recognised better. `pause` is the silence after it, in seconds."""

    slide: int
    text: str
    spoken: str
    pause: float


TITLE = "Как появляется радуга"
LESSON = [
    Sentence(
        0,
        "Здравствуйте! Сегодня мы узнаем, как появляется радуга.",
        "Здравствуйте! Сегодня мы узнаем, как появляется радуга.",
        0.7,
    ),
    Sentence(
        0,
        "Солнечный свет кажется белым, но он состоит из многих цветов.",
        "С+олнечный св+ет к+ажется б+елым, но он состоит из мн+огих цвет+ов.",
        1.1,
    ),
    Sentence(
        1,
        "Когда свет попадает в каплю воды, он меняет направление.",
        "Когд+а свет попад+ает в к+аплю вод+ы, +он мен+яет направл+ение.",
        0.55,
    ),
    Sentence(
        1,
        "Красный свет поворачивает меньше, а фиолетовый больше.",
        "Кр+асный св+ет повор+ачивает м+еньше, а фиол+етовый б+ольше.",
        1.1,
    ),
    Sentence(
        2,
        "Так белый луч превращается в цветную полосу.",
        "Так б+елый луч превращ+ается в цветн+ую пол+осу.",
        0.55,
    ),
    Sentence(
        2,
        "Потом свет отражается от стенки и снова выходит в воздух.",
        "Потом свет отражается от стенки и снова выходит в воздух.",
        1.1,
    ),
    Sentence(
        3,
        "Радуга появляется только тогда, когда солнце светит нам в спину.",
        "Радуга появляется только тогда, когда солнце светит нам в спину.",
        0.55,
    ),
    Sentence(
        3,
        "Мы видим радугу под углом 42 градуса.",
        "Мы видим радугу под углом сорок два градуса.",
        1.1,
    ),
    Sentence(
        4,
        "Мы видим семь цветов, от красного до фиолетового.",
        "Мы видим семь цветов, от красного до фиолетового.",
        0.55,
    ),
    Sentence(
        4,
        "Итак, радуга — это солнечный свет, который разделили капли дождя.",
        "Итак, радуга - это солнечный свет, который разделили капли дождя.",
        0.0,
    ),
]


# --- Speech -----------------------------------------------------------------------------------------------------------


def speak(sentences: list[Sentence], folder: Path) -> list[np.ndarray]:
    """Read every sentence aloud: mono float arrays at SAMPLE_RATE, without the silence around them, all equally loud."""
    lines = [f"(voice_{VOICE})"]
    for number, sentence in enumerate(sentences):
        lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{sentence.spoken}")) "{folder / str(number)}.wav")')
    program = folder / "talk.scm"
    program.write_text("\n".join(lines), encoding="utf-8")
    subprocess.run(["festival", "--batch", str(program)], check=True)

    clips = []
    for number in range(len(sentences)):
        clip, rate = sf.read(folder / f"{number}.wav")
        assert rate == VOICE_RATE, f"the voice is expected at {VOICE_RATE} Hz, not {rate}"
        clip = brighten(trim_silence(clip, rate), rate)
        clip = resample_poly(clip, SAMPLE_RATE // rate, 1)
        clips.append(clip * (10 ** (SPEECH_DBFS / 20) / rms(clip)))
    return clips


def rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound))))


def trim_silence(clip: np.ndarray, rate: int, margin: float = 0.04) -> np.ndarray:
    """Cut the silence at both ends, leave `margin` seconds of it, faded, so that no sound is clipped."""
    step = rate // 100  # 10 ms
    frames = clip[: len(clip) // step * step].reshape(-1, step)
    level = np.sqrt(np.mean(np.square(frames), axis=1))
    loud = np.flatnonzero(level > level.max() * 10 ** (SILENCE_DB / 20))
    edge = int(margin * rate)
    cut = clip[max(0, loud[0] * step - edge) : (loud[-1] + 1) * step + edge].copy()
    ramp = np.linspace(0, 1, edge)
    cut[:edge] *= ramp
    cut[-edge:] *= ramp[::-1]
    return cut


def brighten(clip: np.ndarray, rate: int) -> np.ndarray:
    """Take the rumble below 70 Hz away and lift the consonants around 3.2 kHz by 4 dB."""
    spectrum = np.fft.rfft(clip)
    frequency = np.maximum(np.fft.rfftfreq(len(clip), 1 / rate), 1.0)
    low_cut = 1 / (1 + (70 / frequency) ** 4)
    bell_db = 4.0 * np.exp(-np.square(np.log2(frequency / 3200)))  # one octave wide
    return np.fft.irfft(spectrum * low_cut * 10 ** (bell_db / 20), len(clip))


def schedule(sentences: list[Sentence], clips: list[np.ndarray]) -> list[tuple[float, float]]:
    """Start and end of every sentence, in seconds from the beginning of the film."""
    times, now = [], LEAD_IN
    for sentence, clip in zip(sentences, clips, strict=True):
        end = now + len(clip) / SAMPLE_RATE
        times.append((round(now, 3), round(end, 3)))
        now = end + sentence.pause
    return times


# --- Music ------------------------------------------------------------------------------------------------------------

CHORDS = [[50, 57, 62, 66, 69], [47, 54, 62, 66, 69], [43, 55, 59, 62, 66], [45, 52, 57, 64, 71]]  # D, Bm7, Gmaj7, Asus2 (MIDI notes)
CHORD_SECONDS = 6.0
BELL_NOTES = [74, 76, 78, 81, 83, 86]  # D major pentatonic: fits every chord


def note_hz(midi: int) -> float:
    return 440.0 * 2 ** ((midi - 69) / 12)


def make_music(seconds: float, seed: int = 42) -> np.ndarray:
    """A slow pad with a few soft bells: float stereo array [samples, 2], RMS 1."""
    rng = np.random.default_rng(seed)
    music = np.zeros((int(seconds * SAMPLE_RATE) + SAMPLE_RATE * 12, 2))
    for index in range(math.ceil(seconds / CHORD_SECONDS)):
        start = index * CHORD_SECONDS
        for note in CHORDS[index % len(CHORDS)]:
            add_at(music, pad_tone(note_hz(note), CHORD_SECONDS + 3.0, rng), start)
        for beat in sorted(rng.choice(6, size=2, replace=False)):
            add_at(music, bell_tone(note_hz(int(rng.choice(BELL_NOTES))), rng), start + beat * CHORD_SECONDS / 6)
    music = music[: int(seconds * SAMPLE_RATE)]
    fade_in, fade_out = int(0.6 * SAMPLE_RATE), int(1.4 * SAMPLE_RATE)
    music[:fade_in] *= np.linspace(0, 1, fade_in)[:, None]
    music[-fade_out:] *= np.linspace(1, 0, fade_out)[:, None]
    return music / rms(music)


def add_at(track: np.ndarray, sound: np.ndarray, seconds: float) -> None:
    first = int(seconds * SAMPLE_RATE)
    room = track[first : first + len(sound)]
    room += sound[: len(room)]


def pad_tone(frequency: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A warm tone of four partials, a little out of tune between left and right, that swells and dies over three seconds."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    swell = np.clip(np.minimum(time / 2.0, (seconds - time) / 3.0), 0, 1)
    sides = []
    for detune in (-0.0012, 0.0012):
        phases = rng.uniform(0, 2 * np.pi, 4)
        partials = [np.sin(2 * np.pi * frequency * (1 + detune) * k * time + phases[k - 1]) / k**2 for k in range(1, 5)]
        sides.append(np.sum(partials, axis=0))
    return np.stack(sides, axis=1) * (np.sin(swell * np.pi / 2) ** 2)[:, None]


def bell_tone(frequency: float, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(2.5 * SAMPLE_RATE)) / SAMPLE_RATE
    tone = 0.8 * (np.sin(2 * np.pi * frequency * time) + 0.25 * np.sin(2 * np.pi * frequency * 2.756 * time) * np.exp(-time * 6))
    tone *= np.exp(-time * 2.2) * np.minimum(time / 0.012, 1)
    right = rng.uniform(0.25, 0.75)
    return np.stack([tone * (1 - right), tone * right], axis=1)


def mix(clips: list[np.ndarray], times: list[tuple[float, float]], seconds: float) -> np.ndarray:
    """Speech in the middle, music MUSIC_BELOW_SPEECH dB under it: float stereo array [samples, 2]."""
    track = make_music(seconds) * 10 ** ((SPEECH_DBFS - MUSIC_BELOW_SPEECH) / 20)
    for clip, (start, _) in zip(clips, times, strict=True):
        add_at(track, np.stack([clip, clip], axis=1), start)
    peak = float(np.max(np.abs(track)))
    assert peak < 0.97, f"the mix would clip: peak {peak:.2f}"
    return track


# --- Slides -----------------------------------------------------------------------------------------------------------


class Canvas:
    """A slide drawn at twice its size and reduced, so that slanted lines are smooth. Positions are in pixels of the film."""

    SCALE = 2
    PANEL_BOX = (620, 70, 1220, 640)  # left, top, right, bottom of the place for the diagram
    CORNER = 18

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH * self.SCALE, HEIGHT * self.SCALE), BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)

    def _up(self, points: Path2D) -> Path2D:
        return [(x * self.SCALE, y * self.SCALE) for x, y in points]

    def line(self, points: Path2D, colour: Colour, width: float = 4) -> None:
        self.draw.line(self._up(points), fill=colour, width=round(width * self.SCALE), joint="curve")

    def dashes(self, start: Point, end: Point, colour: Colour, width: float = 2.5, dash: float = 11) -> None:
        count = int(math.dist(start, end) / dash) | 1
        at = [(start[0] + (end[0] - start[0]) * i / count, start[1] + (end[1] - start[1]) * i / count) for i in range(count + 1)]
        for i in range(0, count, 2):
            self.line([at[i], at[i + 1]], colour, width)

    def arrow(self, start: Point, end: Point, colour: Colour, width: float = 5) -> None:
        """A line from start to end with a head in its middle: the way light travels."""
        self.line([start, end], colour, width)
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        tip = ((start[0] + end[0]) / 2 + 9 * math.cos(angle), (start[1] + end[1]) / 2 + 9 * math.sin(angle))
        wings = [(tip[0] - 20 * math.cos(angle + a), tip[1] - 20 * math.sin(angle + a)) for a in (-0.42, 0.42)]
        self.draw.polygon(self._up([tip, *wings]), fill=colour)

    def disc(self, centre: Point, radius: float, fill: Colour | None, outline: Colour | None = None, width: float = 4) -> None:
        (x, y), r = centre, radius
        self.draw.ellipse(self._up([(x - r, y - r), (x + r, y + r)]), fill=fill, outline=outline, width=round(width * self.SCALE))

    def arc(self, centre: Point, radius: float, begin: float, end: float, colour: Colour, width: float) -> None:
        """An arc from angle `begin` to `end`, in degrees clockwise from the right."""
        (x, y), r = centre, radius
        self.draw.arc(self._up([(x - r, y - r), (x + r, y + r)]), begin, end, fill=colour, width=round(width * self.SCALE))

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour, radius: float = CORNER) -> None:
        self.draw.rounded_rectangle(self._up([(left, top), (right, bottom)]), radius * self.SCALE, fill=fill)

    def text(self, at: Point, words: str, size: int, colour: Colour = INK, bold: bool = False, anchor: str = "lm") -> None:
        font = ImageFont.truetype(str(FONTS / ("PTS75F.ttf" if bold else "PTS55F.ttf")), size * self.SCALE)
        self.draw.text(self._up([at])[0], words, font=font, fill=colour, anchor=anchor)

    def sun(self, centre: Point, radius: float) -> None:
        x, y = centre
        for ray in range(12):
            c, s = math.cos(ray * math.pi / 6), math.sin(ray * math.pi / 6)
            self.line([(x + c * radius * 1.3, y + s * radius * 1.3), (x + c * radius * 1.65, y + s * radius * 1.65)], SUN, 4)
        self.disc(centre, radius, SUN)

    def keep_inside_panel(self) -> None:
        """Paint over whatever a diagram has drawn beyond its panel; the text at the left stays."""
        left, top, right, bottom = self.PANEL_BOX
        outside = Image.new("L", self.image.size, 0)
        mask = ImageDraw.Draw(outside)
        mask.rectangle(self._up([(left - 130, 0), (WIDTH, HEIGHT)]), fill=255)
        mask.rounded_rectangle(self._up([(left, top), (right, bottom)]), self.CORNER * self.SCALE, fill=0)
        self.image.paste(BACKGROUND, mask=outside)

    def pixels(self) -> np.ndarray:
        return np.asarray(self.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def slide_frame(number: int, title: str, points: list[str]) -> Canvas:
    """The common part of the slides: number, title, the points at the left, an empty panel for the diagram at the right."""
    canvas = Canvas()
    canvas.box(*canvas.PANEL_BOX, PANEL)
    canvas.text((70, 105), f"{number} / 5", 24, SOFT)
    for row, line in enumerate(title.split("\n")):
        canvas.text((70, 168 + row * 58), line, 50, bold=True)
    top = 168 + title.count("\n") * 58 + 90
    for index, point in enumerate(points):
        canvas.disc((80, top + 2), 7, RAINBOW[index * 3 % len(RAINBOW)])
        for row, line in enumerate(point.split("\n")):
            canvas.text((106, top + row * 40), line, 31)
        top += point.count("\n") * 40 + 74
    return canvas


def draw_title() -> tuple[Canvas, Path2D]:
    """Hills, a cloud with rain and a rainbow; the light runs along the rainbow."""
    canvas = slide_frame(1, "Как появляется\nрадуга", ["Солнечный свет\nкажется белым", "Он состоит\nиз многих цветов"])
    centre = (920.0, 560.0)
    for band, colour in enumerate(RAINBOW):
        canvas.arc(centre, 265 - band * 15, 180, 360, colour, 16)
    canvas.disc((760, 770), 250, MEADOW)
    canvas.disc((1070, 850), 350, (28, 74, 76))
    for x, y, radius in ((742, 168, 34), (790, 146, 48), (842, 166, 38), (792, 180, 30)):
        canvas.disc((x, y), radius, CLOUD)
    for drop in range(9):
        at = (722 + drop * 17, 222 + drop * 37 % 50)
        canvas.line([at, (at[0] - 4, at[1] + 18)], RAIN, 3)
    canvas.keep_inside_panel()
    path = [(centre[0] - 220 * math.cos(a), centre[1] - 220 * math.sin(a)) for a in np.linspace(0.25, math.pi - 0.25, 60)]
    return canvas, path


def draw_refraction() -> tuple[Canvas, Path2D]:
    """A ray falls on water and fans out; the bending is exaggerated, its order is true: red least, violet most."""
    canvas = slide_frame(
        2, "Свет попадает\nв каплю", ["Свет меняет\nнаправление", "Красный поворачивает\nменьше", "Фиолетовый\nповорачивает больше"]
    )
    surface, hit = 330.0, (860.0, 330.0)
    canvas.box(600, surface, 1240, 680, DEEP_WATER, 0)
    canvas.line([(600, surface), (1240, surface)], WATER, 4)
    canvas.keep_inside_panel()
    canvas.text((1196, surface - 28), "воздух", 26, SOFT, anchor="rm")
    canvas.text((1196, surface + 32), "вода", 26, SOFT, anchor="rm")
    incidence = math.radians(58)
    canvas.dashes((hit[0], 110), (hit[0], 600), (96, 122, 170))
    canvas.dashes(hit, (hit[0] + 190 * math.tan(incidence), surface + 190), SOFT)
    ends = []
    for colour, index in zip(RAINBOW, np.linspace(1.25, 1.95, len(RAINBOW)), strict=True):
        angle = math.asin(math.sin(incidence) / index)
        ends.append((hit[0] + 280 * math.sin(angle), surface + 280 * math.cos(angle)))
        canvas.line([hit, ends[-1]], colour, 6)
    start = (hit[0] - 200 * math.tan(incidence) * 0.68, surface - 200 * 0.68)
    canvas.arrow(start, hit, INK, 6)
    canvas.text((start[0] + 30, start[1] - 26), "белый свет", 26, INK, anchor="lm")
    return canvas, [start, hit, ends[3]]


def trace_drop(index: float, height: float) -> Path2D:
    """The way of a level ray through a round drop of radius 1 (y up, light comes from the left): where it enters, is reflected
    from the back and leaves, and a point further on. `index` is the refractive index, `height` where the ray meets the drop."""
    incidence = math.asin(height)
    refraction = math.asin(height / index)
    step = math.pi - 2 * refraction  # angle at the centre between one touch of the wall and the next
    touches = [math.pi - incidence - touch * step for touch in range(3)]
    dip = 4 * refraction - 2 * incidence  # below the way back to the sun: 42 degrees for red light in water
    way = (-math.cos(dip), -math.sin(dip))
    points = [(math.cos(a), math.sin(a)) for a in touches]
    return [*points, (points[-1][0] + 0.75 * way[0], points[-1][1] + 0.75 * way[1])]


def draw_drop() -> tuple[Canvas, Path2D]:
    """The rays inside a drop, by the laws of refraction and reflection; the spread of colours is exaggerated."""
    canvas = slide_frame(
        3,
        "Что происходит\nвнутри капли",
        ["Белый луч превращается\nв цветную полосу", "Свет отражается\nот стенки", "Свет снова выходит\nв воздух"],
    )
    (x, y), radius = (960.0, 325.0), 190.0
    canvas.disc((x, y), radius, DEEP_WATER, WATER, 4)

    def place(points: Path2D) -> Path2D:
        return [(x + radius * px, y - radius * py) for px, py in points]

    rays = [place(trace_drop(index, 0.8)) for index in np.linspace(1.30, 1.42, len(RAINBOW))]
    for colour, ray in zip(RAINBOW, rays, strict=True):
        canvas.line(ray, colour, 4)
    enter = rays[0][0]
    start = (650.0, enter[1])
    canvas.arrow(start, enter, INK, 6)
    middle = rays[len(rays) // 2]
    for number, (px, py), (dx, dy) in ((1, middle[0], (-26, -34)), (2, middle[1], (38, 8)), (3, middle[2], (44, 30))):
        canvas.disc((px + dx, py + dy), 19, INK)
        canvas.text((px + dx, py + dy), str(number), 25, BACKGROUND, bold=True, anchor="mm")
    return canvas, [start, *middle]


def draw_observer() -> tuple[Canvas, Path2D]:
    """Who looks for a rainbow has the sun behind and raises the eyes by 42 degrees from the point opposite to it."""
    canvas = slide_frame(
        4, "Где искать\nрадугу", ["Солнце светит\nнам в спину", "Угол равен\n42 градусам", "Чем ниже солнце,\nтем выше радуга"]
    )
    ground, eye = 575.0, (800.0, 470.0)
    canvas.box(600, ground, 1240, 680, MEADOW, 0)
    canvas.keep_inside_panel()
    sunbeam, sight = math.radians(10), math.radians(42 - 10)
    drop = (eye[0] + 340 * math.cos(sight), eye[1] - 340 * math.sin(sight))
    start = (drop[0] - 375, drop[1] - 375 * math.tan(sunbeam))
    behind = (eye[0] - 150, eye[1] - 150 * math.tan(sunbeam))
    for column in range(7):
        for row in range(5):
            at = (1030 + column * 26 + row % 2 * 13, 130 + row * 84 + column * 17 % 40)
            canvas.line([at, (at[0] - 3, at[1] + 15)], RAIN, 3)
    canvas.dashes(eye, (eye[0] + 385, eye[1] + 385 * math.tan(sunbeam)), SOFT)
    canvas.arc(eye, 130, -32, 10, INK, 3)
    canvas.text((eye[0] + 146, eye[1] - 24), "42°", 34, INK, bold=True)
    canvas.arrow(start, drop, SUN, 5)
    canvas.arrow(behind, eye, SUN, 5)
    canvas.arrow(drop, eye, RAINBOW[0], 6)
    canvas.disc(drop, 15, WATER, INK, 3)
    canvas.sun((start[0] - 22, start[1] - 5), 30)
    canvas.disc(eye, 17, INK)
    canvas.line([(eye[0], eye[1] + 14), (eye[0], ground - 36)], INK, 8)
    canvas.line([(eye[0] - 16, ground), (eye[0], ground - 38), (eye[0] + 16, ground)], INK, 7)
    canvas.line([(eye[0] - 22, eye[1] + 50), (eye[0], eye[1] + 28), (eye[0] + 22, eye[1] + 50)], INK, 6)
    return canvas, [start, drop, eye]


def draw_summary() -> tuple[Canvas, Path2D]:
    """The seven colours by name."""
    canvas = slide_frame(
        5, "Семь цветов\nрадуги", ["От красного\nдо фиолетового", "Радуга — это\nсолнечный свет", "Его разделили\nкапли дождя"]
    )
    for row, (colour, name) in enumerate(zip(RAINBOW, RAINBOW_NAMES, strict=True)):
        top = 103 + row * 73
        canvas.box(660, top, 900, top + 62, colour, 12)
        canvas.text((930, top + 31), name, 34, INK)
    return canvas, [(780, 110), (780, 600)]


# --- Film -------------------------------------------------------------------------------------------------------------


def slide_starts(sentences: list[Sentence], times: list[tuple[float, float]]) -> list[float]:
    """When every slide comes: in the middle of the pause before its first sentence."""
    starts = [0.0]
    for before, after, (_, ended), (begins, _) in zip(sentences, sentences[1:], times, times[1:], strict=False):
        if after.slide != before.slide:
            starts.append(round((ended + begins) / 2, 3))
    return starts


def along(path: Path2D, fraction: float) -> Point:
    """The point at a fraction of the length of a broken line."""
    corners = np.array(path)
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    at = fraction * lengths[-1]
    return float(np.interp(at, lengths, corners[:, 0])), float(np.interp(at, lengths, corners[:, 1]))


def add_glow(frame: np.ndarray, centre: Point, strength: float, radius: int = 26) -> None:
    """Lighten a round spot of the frame: a pulse of light."""
    x, y = round(centre[0]), round(centre[1])
    top, left = max(y - radius, 0), max(x - radius, 0)
    patch = frame[top : y + radius, left : x + radius]
    rows, columns = np.mgrid[top : top + patch.shape[0], left : left + patch.shape[1]]
    distance = np.hypot(rows - centre[1], columns - centre[0])
    light = np.clip(np.exp(-np.square(distance / 6)) + 0.45 * np.exp(-np.square(distance / 12)), 0, 1) * strength
    patch[:] = (patch + (255 - patch) * light[..., None]).astype(np.uint8)


def progress_colours() -> np.ndarray:
    """The colours of a full progress bar, [WIDTH, 3]."""
    stops = np.linspace(0, WIDTH - 1, len(RAINBOW))
    return np.stack([np.interp(np.arange(WIDTH), stops, channel) for channel in np.array(RAINBOW).T], axis=1).astype(np.uint8)


def film_frames(starts: list[float], seconds: float) -> Iterator[np.ndarray]:
    """Every picture of the film: the slide of the moment, a pulse of light that runs through its diagram, the progress bar."""
    slides = [(canvas.pixels(), path) for canvas, path in (draw_title(), draw_refraction(), draw_drop(), draw_observer(), draw_summary())]
    bar, pulse_seconds = progress_colours(), 3.2
    for number in range(round(seconds * FPS)):
        now = number / FPS
        current = sum(start <= now for start in starts) - 1
        picture, path = slides[current]
        frame = picture.copy()
        phase = (now - starts[current]) % pulse_seconds / pulse_seconds
        add_glow(frame, along(path, phase), strength=min(1.0, 8 * phase, 8 * (1 - phase)))
        into = (now - starts[current]) / SLIDE_FADE
        if current and into < 1:
            frame = (slides[current - 1][0] * (1 - into) + frame * into).astype(np.uint8)
        frame[-10:] = PANEL
        done = round(WIDTH * (number + 1) / (seconds * FPS))
        frame[-10:, :done] = bar[:done]
        yield frame


def encode(frames: Iterator[np.ndarray], sound: Path, target: Path) -> None:
    """Write the film. Two threads and no time stamps: the same bytes on every machine with this ffmpeg."""
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "pipe:0"]
    video = ["-c:v", "libx264", "-preset", "slow", "-crf", "22", "-pix_fmt", "yuv420p", "-g", str(FPS * 4), "-threads", "2"]
    colour = [
        "-vf",
        "scale=out_color_matrix=bt709:out_range=tv",
        "-colorspace",
        "bt709",
        "-color_primaries",
        "bt709",
        "-color_trc",
        "bt709",
    ]
    audio = ["-c:a", "aac", "-b:a", "128k", "-ar", str(SAMPLE_RATE), "-ac", "2"]
    plain = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-movflags", "+faststart"]
    command = ["ffmpeg", "-v", "error", "-y", *raw, "-i", str(sound), *video, *colour, *audio, *plain, "-shortest", str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for frame in frames:
            process.stdin.write(frame.tobytes())
        process.stdin.close()
        if process.wait():
            raise SystemExit(f"ffmpeg could not write {target}: exit status {process.returncode}")


def describe(times: list[tuple[float, float]], starts: list[float], seconds: float) -> dict:
    """The truth about the film, as it goes to lesson_ru.json. Times are in seconds."""
    return {
        "title": TITLE,
        "language": "ru",
        "duration": seconds,
        "voice": VOICE,
        "licences": {
            "text, slides, music": "our own work, under the licence of this repository",
            "voice": "festvox-ru (Debian main), (c) 2005 Nickolay V. Shmyrev, BSD-like",
            "font": "PT Sans, (c) 2009 ParaType Ltd, ParaType Free Font Licence",
        },
        "slides": starts,
        "sentences": [{"start": start, "end": end, "text": s.text} for s, (start, end) in zip(LESSON, times, strict=True)],
    }


def require_packages() -> None:
    """Stop with one line that names what is missing, before any work is done."""
    voice = Path("/usr/share/festival/voices/russian") / VOICE
    present = {
        "festival": shutil.which("festival"),
        "festvox-ru": voice.exists(),
        "fonts-paratype": FONTS.exists(),
        "ffmpeg": shutil.which("ffmpeg"),
    }
    missing = [package for package, found in present.items() if not found]
    if missing:
        raise SystemExit(f"first install what is missing: apt-get install {' '.join(missing)}")


def main() -> None:
    require_packages()
    film, truth = HERE / "lesson_ru.mp4", HERE / "lesson_ru.json"
    with tempfile.TemporaryDirectory() as folder:
        clips = speak(LESSON, Path(folder))
        times = schedule(LESSON, clips)
        seconds = math.ceil((times[-1][1] + TAIL) * FPS) / FPS
        starts = slide_starts(LESSON, times)
        sound = Path(folder) / "mix.wav"
        sf.write(sound, mix(clips, times, seconds), SAMPLE_RATE)
        encode(film_frames(starts, seconds), sound, film)
    truth.write_text(json.dumps(describe(times, starts, seconds), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(f"{film.name}: {seconds:.2f} s, {len(LESSON)} sentences, {len(starts)} slides, {film.stat().st_size / 1e6:.2f} MB")
    print(f"{truth.name}: {truth.stat().st_size} bytes")


if __name__ == "__main__":
    main()
