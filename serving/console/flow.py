"""Show the flow from stream to table and views, and its rates."""

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from headwater.serving.console.charts import rate_options
from headwater.serving.console.elements import card, replace_options
from headwater.serving.console.formatting import behind, legible
from headwater.serving.console.overview import Hop, Overview
from headwater.serving.console.pictures import sparkline
from headwater.serving.console.places import link_to

__all__ = ["FlowPanel", "RatesPanel", "hop_texts"]

_LANES = (("lake files", "table"), ("views",), ("dead letters",))
"""Rows of boxes that events go to from the processor."""
_SECTIONS = {
    "stream": "shards",
    "processor": "rates",
    "lake files": "table",
    "table": "table",
    "views": "views",
    "dead letters": "letters",
}
"""Sections that say more of each place."""
_RATES = {
    "stream": "arriving",
    "processor": "events",
    "lake files": "lake",
    "table": "published",
    "dead letters": "dead",
}
"""Rates of the last minutes by place."""
_COLOURS = {"well": "bg-primary", "late": "bg-warning", "amiss": "bg-negative"}


class FlowPanel:
    """Show the places that events pass as boxes, from left to right; on a phone from top to bottom."""

    def __init__(self) -> None:
        self._boxes: dict[str, tuple[Any, list[Any], Any]] = {}
        with (
            card(
                "flow",
                "Flow",
                "Events that reached each place, events a second with the last 15 minutes, and the age of the oldest "
                "that waits: amber from a minute on; red where something is to be done.",
                wide=True,
            ),
            ui.element("div").classes("w-full flex max-sm:flex-col items-center gap-2").props('role="list"'),
        ):
            self._box("stream")
            _arrow()
            self._box("processor")
            with ui.element("div").classes("grow-[2] flex flex-col gap-2 max-sm:w-full"):
                for lane in _LANES:
                    with ui.element("div").classes("flex flex-nowrap items-center gap-2"):
                        _icon("arrow_forward", "max-sm:hidden")
                        _icon("subdirectory_arrow_right", "sm:hidden")
                        with ui.element("div").classes("grow flex items-center gap-2 max-sm:flex-col"):
                            for number, name in enumerate(lane):
                                if number:
                                    _arrow()
                                self._box(name)

    def _box(self, name: str) -> None:
        box = ui.element("div").classes("rounded-lg p-2 text-center text-white text-xs bg-primary min-h-20")
        box.classes("w-44 max-sm:w-full grow flex flex-col justify-center").props(
            f'role="listitem" aria-label="{name}"'
        )
        with box:
            ui.link(name, link_to(_SECTIONS[name])).classes("text-sm font-bold text-white")
            self._boxes[name] = (box, [ui.label("–") for _ in range(3)], ui.html(""))

    def show(self, found: Overview) -> None:
        """Show counts, rate and lag of each place."""
        for hop in found.hops:
            box, labels, line = self._boxes[hop.name]
            box.classes(add=_COLOURS[hop.state], remove=" ".join({*_COLOURS.values()} - {_COLOURS[hop.state]}))
            if hop.name in _RATES:
                line.set_content(sparkline([rate.get(_RATES[hop.name]) for _, rate in found.points]))
            for label, text in zip(labels, hop_texts(hop), strict=True):
                label.set_text(text)


def _arrow() -> None:
    _icon("arrow_forward", "max-sm:rotate-90")


def _icon(name: str, classes: str) -> None:
    ui.icon(name).classes(f"text-xl {classes}").props('aria-hidden="true"')


def hop_texts(hop: Hop) -> tuple[str, str, str]:
    """Return the three lines of a box: counts, lag, and a note."""
    total = "" if hop.total is None else f"{hop.total:,}"
    rate = "" if hop.per_second is None else f"{hop.per_second:,.1f}/s"
    return (
        " · ".join(part for part in (total, rate) if part),
        "" if hop.lag_ms is None else behind(hop.lag_ms),
        hop.note,
    )


class RatesPanel:
    """Show rates over the last minutes, and the counts since the beginning."""

    def __init__(self) -> None:
        with card("rates", "Rates", "A second, over the last minute, as of each commit. Times are UTC."):
            self._chart = ui.echart(rate_options(()), renderer="svg").classes("w-full h-72")
            self._counts = ui.label("").classes("text-sm opacity-80")

    def show(self, found: Overview) -> None:
        """Show the rates and counts of an overview."""
        replace_options(self._chart, rate_options(found.points))
        self._counts.set_text(_counts_text(sorted(found.counts.items())))


def _counts_text(counts: Sequence[tuple[str, int]]) -> str:
    return legible(" · ".join(f"{name} {number:,}" for name, number in counts))
