"""A sheet of sign-in links to print and cut: a card with a QR code for each person."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

import segno

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Sign-in links</title>
<style>
@page { size: A4; margin: 12mm }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 190mm; padding: 2mm; font: 10pt/1.35 system-ui, sans-serif }
body, svg { color: #000; background: #fff }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(85mm, 100%), 1fr)); gap: 4mm }
article { border: 1px dashed #777; padding: 4mm 5mm; break-inside: avoid }
article { display: grid; grid-template-columns: minmax(0, 1fr) 32mm; gap: 0 4mm }
h2 { font-size: 13pt; margin: 0; overflow-wrap: anywhere; grid-column: 1 / 3 }
p { margin: 1.5mm 0 0 }
svg { width: 32mm; height: 32mm; grid-column: 2; grid-row: 2 }
.link { grid-column: 1 / 3; font: 7.5pt/1.3 ui-monospace, monospace; overflow-wrap: anywhere }
</style>
<main>
"""
_CARD: Final = """<article>
<h2 dir="auto">{name}</h2>
<p>Scan the code or open the link once, on the device that you will work with, by {until}. It signs you in: keep it to
yourself.</p>
{code}
<p class="link">{link}</p>
</article>
"""


def sheet(cards: Iterable[tuple[str, str]], *, until: str) -> str:
    """The sheet as an HTML page that loads nothing.

    Args:
        cards: names and links.
        until: the last day on which the links work, as text.
    """
    return _PAGE + "".join(
        _CARD.format(name=escape(name), link=escape(link), code=_code(link), until=escape(until))
        for name, link in cards
    )


def _code(link: str) -> str:
    """A QR code as inline SVG."""
    return segno.make(link, error="m", micro=False).svg_inline(border=2, omitsize=True)
