"""Jinja filters of the templates."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from flask import Flask
from markupsafe import Markup, escape

from service.jobs.queries import columns
from service.spec import metric_info
from service.wording import counted, rounded

NOTHING: Final = "\N{EN DASH}"
"""Shown for a missing value."""
_CODE: Final = re.compile(r"`([^`]+)`")


def register(app: Flask) -> None:
    """Add the filters to the app's templates."""
    app.jinja_env.filters |= {
        "pretty": pretty,
        "code": code,
        "constraints": constraints,
        "duration": metric_info.duration,
    }
    app.jinja_env.filters |= {"counted": counted, "size": metric_info.size}
    app.jinja_env.filters |= {
        "column_label": column_label,
        "metric_label": metric_label,
        "metric_value": metric_value,
        "percentage": percentage,
    }
    app.jinja_env.filters["plain"] = plain
    app.jinja_env.globals["metric_documents"] = metric_info.documents


def pretty(document: Any) -> str:
    """A document as indented JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def code(text: str) -> Markup:
    """Text with the parts in backticks as ``<code>``."""
    segments = _CODE.split(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(segment) if index % 2 else escape(segment)
        for index, segment in enumerate(segments)
    )


def metric_label(name: str) -> str:
    """The display name of a metric."""
    return metric_info.describe(name).label


def column_label(name: str) -> str:
    """The display name of a column of job lists."""
    return columns.parse(name).label


def metric_value(value: float | None, name: str) -> str:
    """A metric's value in its unit."""
    return NOTHING if value is None else metric_info.number(name, value)


def plain(value: float | int | str | None) -> str:
    """A number of any size, to four digits; text as it is."""
    if value is None:
        return NOTHING
    return rounded(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def percentage(value: float | None) -> str:
    """A ratio as a percentage."""
    return NOTHING if value is None else f"{value:.1%}"


def constraints(schema: dict[str, Any]) -> str:
    """The allowed values and the default in a parameter's schema, in words."""
    options = [schema, *schema.get("anyOf", [])]
    words = []
    for option in options:
        if "enum" in option:
            words.append("One of " + ", ".join(option["enum"]) + ".")
        if "minimum" in option or "maximum" in option:
            words.append(f"From {option.get('minimum', 'any')} to {option.get('maximum', 'any')}.")
    default = schema.get("default")
    if default not in (None, [], False):
        words.append(f"Default: {default}.")
    return " ".join(words)
