"""The HTML of pages, as independent of line breaks in templates as a browser is."""

from __future__ import annotations

import re

_BLOCKS = (
    "body|dd|details|div|dl|dt|figure|form|h[1-6]|li|main|nav|ol|option|p|rect|section|select|summary|svg|table|tbody|"
    "td|th|thead|tr|ul"
)
_NOT_SHOWN = [
    (r"\s+", " "),
    (r" >", ">"),
    (rf" ?(</?(?:{_BLOCKS})\b[^>]*>) ?", r"\1"),
    (r"(<button\b[^>]*>) ", r"\1"),
    (r" </button>", "</button>"),
]


def one_line(html: str) -> str:
    """HTML on one line, without the white space that is not shown: at the edges of blocks, buttons and tags."""
    for pattern, replacement in _NOT_SHOWN:
        html = re.sub(pattern, replacement, html)
    return html
