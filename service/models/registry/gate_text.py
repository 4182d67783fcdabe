"""Gates in words, for pages and terminals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.spec.metric_info import describe, number, size
from service.wording import counted


def gate_text(gate: Mapping[str, Any]) -> str:
    """What a gate requires: ``val accuracy at least 97.00%``; of a kind that is not known here, its fields."""
    match gate:
        case {"better_than": other, "metric": metric}:
            margin = f" by more than {number(metric, gate['margin'])}" if gate.get("margin") else ""
            over = (
                f"over {counted(gate.get('seeds', 5), 'seed')}, at {100 * gate.get('confidence', 0.95):.4g}% confidence"
            )
            return f"better than {other} in {describe(metric).label}{margin}, {over}"
        case {"metric": metric}:
            words = (("at least", gate.get("min")), ("at most", gate.get("max")))
            bounds = " and ".join(f"{word} {number(metric, bound)}" for word, bound in words if bound is not None)
            return f"{describe(metric).label} {bounds}"
        case {"reproduced": True}:
            return "reproduced bit for bit"
        case {"certificate": True}:
            return "certified"
        case {"max_bytes": count}:
            return f"checkpoint of at most {size(count)}"
        case {"approvals": count}:
            return f"approved by {counted(count, 'other key')}"
    return ", ".join(name if value is True else f"{name} {value}" for name, value in gate.items())
