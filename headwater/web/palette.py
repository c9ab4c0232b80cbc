"""Name the colours that all pages share, in light and dark, and give pages without scripts their style. Pure.

Text has a contrast of 4.5 or more to its ground, in both.
"""

__all__ = ["BRAND", "PAGE_STYLE", "SERIES_COUNT", "dark_variables", "light_variables"]

BRAND = "#1d5fa8"
"""Ground of headers and buttons, below white text."""
_NAMES = ("ink", "soft", "paper", "ground", "grid", "focus", "link", "good", "warn", "bad")
_LIGHT = (
    *("#242b35", "#515c6b", "#ffffff", "#f3f5f8", "#d6dce4", "#b34700", "#1d5fa8", "#1b7a35", "#8a5a00", "#b3261e"),
    *("#1d5fa8", "#b34700", "#1b7a35", "#7b3fa0", "#a3195b", "#00707a", "#6b5b00", "#4a5568"),
)
_DARK = (
    *("#dde3ea", "#a9b4c1", "#1b1f24", "#121519", "#3a4149", "#ffbf47", "#8ab8f0", "#6fd08c", "#e5b454", "#ff9d94"),
    *("#7db4f0", "#ffab66", "#6fd08c", "#c79be8", "#ff8fb8", "#5fd0da", "#d8c44a", "#b8c2cf"),
)
SERIES_COUNT = len(_LIGHT) - len(_NAMES)
"""Colours of a chart's lines: `--series-0` and so on."""


def light_variables() -> str:
    """Return the declarations of all variables in the light.

    >>> light_variables()[:34]
    'color-scheme:light;--ink:#242b35;-'
    """
    return _declared("light", _LIGHT)


def dark_variables() -> str:
    """Return the declarations of all variables in the dark.

    >>> dark_variables()[:33]
    'color-scheme:dark;--ink:#dde3ea;-'
    """
    return _declared("dark", _DARK)


def _declared(scheme: str, colours: tuple[str, ...]) -> str:
    names = (*_NAMES, *(f"series-{number}" for number in range(SERIES_COUNT)))
    return f"color-scheme:{scheme};" + "".join(
        f"--{name}:{colour};" for name, colour in zip(names, colours, strict=True)
    )


PAGE_STYLE = f"""
:root{{{light_variables()}}}
@media (prefers-color-scheme:dark){{:root{{{dark_variables()}}}}}
*{{box-sizing:border-box}}
html{{scroll-padding-top:4rem}}
body{{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}}
header{{position:sticky;top:0;background:{BRAND};color:#fff;padding:.6rem 1rem}}
header{{display:flex;flex-wrap:wrap;gap:.2rem 1rem}}
header h1{{font-size:1.25rem;line-height:1.75rem;margin:0}}
header a{{color:#fff;line-height:1.75rem}}
:focus-visible{{outline:3px solid var(--focus);outline-offset:2px}}
header :focus-visible{{outline-color:#fff}}
a{{color:var(--link)}}
main{{max-width:75rem;margin:auto;padding:1rem}}
section,nav{{background:var(--paper);border:1px solid var(--grid);border-radius:6px}}
section,nav{{padding:.5rem 1rem 1rem;margin:0 0 1rem}}
nav ul{{list-style:none;margin:0;padding:0;columns:24rem}}
h2{{font-size:1.1rem;margin:.5rem 0}}
h3{{font-size:1rem;margin:1rem 0 .3rem}}
p{{margin:.3rem 0;max-width:50rem}}
table{{border-collapse:collapse;width:100%}}
td,th{{text-align:left;padding:.25rem .8rem .25rem 0;vertical-align:top;border-top:1px solid var(--grid)}}
th{{color:var(--soft);font-weight:500;border:0}}
td:first-child{{min-width:7rem}}
code,pre{{font:14px/1.5 ui-monospace,monospace}}
pre{{white-space:pre-wrap;margin:.3rem 0;padding:.6rem;border:1px solid var(--grid);border-radius:4px}}
.method{{font-weight:700;color:var(--good)}}
.method.post{{color:var(--warn)}}
.soft{{color:var(--soft)}}
form{{max-width:24rem;margin:10vh auto;padding:0 1rem}}
input,button{{font:inherit;width:100%;padding:.5rem;margin:.25rem 0}}
button{{background:{BRAND};color:#fff;border:0;border-radius:4px}}
@media (max-width:600px){{
table,tbody,tr,td{{display:block}}thead{{display:none}}td{{border:0;padding:0}}
tr{{border-top:1px solid var(--grid);padding:.3rem 0}}}}
"""
"""Style sheet of a page without scripts; on a phone the cells of a table lie below one another."""
