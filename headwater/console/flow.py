"""The sections of the page that have the flow and its rates."""

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from headwater.console.charts import rate_options
from headwater.console.elements import card, replace_options
from headwater.console.overview import Hop, Overview
from headwater.console.words import behind

__all__ = ["FlowPanel", "RatesPanel", "hop_words"]

_LANES = (("lake files", "table"), ("views",), ("dead letters",))
"""Where events go from the processor."""


class FlowPanel:
    """The places that events pass as boxes, from left to right; on a phone from top to bottom."""

    def __init__(self) -> None:
        self._boxes: dict[str, tuple[Any, list[Any]]] = {}
        with (
            card("Flow", "What came how far, how much a second, and how old the oldest is that waits.", wide=True),
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
            ui.label(name).classes("text-sm font-bold")
            self._boxes[name] = (box, [ui.label("–") for _ in range(3)])

    def show(self, found: Overview) -> None:
        for hop in found.hops:
            box, labels = self._boxes[hop.name]
            box.classes(add="bg-negative" if hop.amiss else "bg-primary")
            box.classes(remove="bg-primary" if hop.amiss else "bg-negative")
            for label, text in zip(labels, hop_words(hop), strict=True):
                label.set_text(text)


def _arrow() -> None:
    _icon("arrow_forward", "max-sm:rotate-90")


def _icon(name: str, classes: str) -> None:
    ui.icon(name).classes(f"text-xl {classes}").props('aria-hidden="true"')


def hop_words(hop: Hop) -> tuple[str, str, str]:
    """What is said of a place: counts, lag, and more."""
    total = "" if hop.total is None else f"{hop.total:,}"
    rate = "" if hop.per_second is None else f"{hop.per_second:,.1f}/s"
    return (
        " · ".join(part for part in (total, rate) if part),
        "" if hop.lag_ms is None else behind(hop.lag_ms),
        hop.note,
    )


class RatesPanel:
    """Rates over the last minutes."""

    def __init__(self) -> None:
        with card("Rates", "A second, over the last minute, as of each commit. Times are UTC."):
            self._chart = ui.echart(rate_options(()), renderer="svg").classes("w-full h-72")
            self._counts = ui.label("").classes("text-sm opacity-80")

    def show(self, found: Overview) -> None:
        replace_options(self._chart, rate_options(found.points))
        self._counts.set_text(_counted(sorted(found.counts.items())))


def _counted(counts: Sequence[tuple[str, int]]) -> str:
    return " · ".join(f"{name} {number:,}" for name, number in counts)
