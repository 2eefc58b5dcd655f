"""Progress that a person watches: the stage, how far it is, how long it still takes. Nothing where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from tasks.progress import TIME_SHARES, WHOLE, Event

_COLOURS = {"cached": "green", "to compute": "yellow", "unknown": "dim"}
_WIDE = 200  # characters of a table where nobody's terminal says otherwise
_OF_AN_EDIT = ("id", "line", "source_text", "start", "end", "made")  # what isn't its change


class Progress:
    """A watcher (`tasks.progress.watched_by`) that draws a line for each stage and one for the whole."""

    def __init__(self, show: bool, whole: str = "the lesson") -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not show,
        )
        self._lines: dict[str, TaskID] = {}
        self._shares = dict.fromkeys(TIME_SHARES, 0.0)
        self._whole = self._bars.add_task(f"[bold]{whole}", total=1.0, note="")

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        if self._bars.disable:
            return
        if event.stage == WHOLE:
            self._bars.update(self._whole, completed=event.share)
            return
        self._draw_stage(event)
        if event.stage in self._shares:
            self._shares[event.stage] = max(self._shares[event.stage], event.share)
            self._bars.update(self._whole, completed=sum(TIME_SHARES[stage] * share for stage, share in self._shares.items()))

    def _draw_stage(self, event: Event) -> None:
        if event.stage not in self._lines:
            self._lines[event.stage] = self._bars.add_task(event.stage.replace("_", " "), total=1.0, note="")
        line = self._lines[event.stage]
        if event.kind == "started":
            self._bars.reset(line, total=1.0, note="")
        elif event.kind == "waiting":
            self._bars.update(line, note="another run computes it: waiting")
        elif event.kind == "advanced":
            self._bars.update(line, completed=event.share)
        elif event.kind == "finished":
            note: str = event.state
            if event.lines_computed is not None and event.lines_cached is not None:
                note += f", {event.lines_computed} lines computed, {event.lines_cached} cached"
            self._bars.update(line, completed=1.0, note=note)
        else:
            self._bars.update(line, note="[red]failed")


@contextmanager
def download_bar(name: str, show: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar for one download: call it with bytes done and bytes in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), disable=not show) as bars:
        line = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(line, completed=done, total=total)


def show_plan(plan: dict[str, Any], lines: bool) -> None:
    """A plan as a table: what would run, why, and about how long."""
    from flows.plan_lesson import estimate, plan_rows  # imports all stages, which the other tables can do without

    table = Table(title=f"{plan['lesson']['name']} into {plan['target_language']}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column, side in (("stage", "left"), ("state", "left"), ("lines", "right"), ("about", "right"), ("why", "left")):
        table.add_column(column, justify=side, overflow="fold", no_wrap=column != "why")  # type: ignore[arg-type]
    for stage, row in zip(plan["stages"], plan_rows(plan), strict=True):
        table.add_row(row["stage"], Text(row["state"], _COLOURS[row["state"]]), row["lines"], row["about"], Text(row["why"]))
        for line in stage.get("lines", ()) if lines else ():
            table.add_row(f"  {line['id']}", Text(line["state"], _COLOURS[line["state"]]), "", "", Text(line["why"]))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)
    console.print(f"\nA{estimate(plan)[1:]}. Nothing was computed.")


def show_lines(lesson: dict[str, Any]) -> None:
    """A lesson's lines and the edits that there are."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("line", "at", "source", "translation"):
        table.add_column(column, overflow="fold")
    for line in lesson["lines"]:
        text = Text(line["text"], "bold" if line["edited"] else "")
        table.add_row(line["id"], f"{line['start'] // 60:.0f}:{line['start'] % 60:04.1f}", Text(line["source_text"]), text)
    console.print(table)
    for edit in lesson["edits"]:
        changes = {name: edit[name] for name in edit if name not in _OF_AN_EDIT and edit[name] is not None}
        console.print(Text(f"edit {edit['id']}  line {edit['line'] or '(all)'}  {changes}"))
