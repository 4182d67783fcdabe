"""The settings of webhooks."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from service.runtime.setting import setting


def _is_network(text: str) -> bool:
    try:
        return bool(ipaddress.ip_network(text))
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookSettings:
    """What operators decide about webhooks."""

    webhook_networks: tuple[str, ...] = setting(
        "networks to which webhooks may send besides public addresses, such as 10.0.0.0/8, comma-separated",
        (),
        after="TAPELINE_URL",
        valid=lambda networks: all(map(_is_network, networks)),
        rule="have networks in CIDR notation, such as 10.0.0.0/8,fd00::/8",
    )
    webhook_http: bool = setting("1: webhooks may have http:// URLs (default: {default})", False)
    keep_deliveries_days: float = setting(
        "retention of messages to webhooks: days until they are removed (default: {default}; 0: never)",
        30.0,
        after="TAPELINE_KEEP_AUDIT_DAYS",
        high=36500,
    )
