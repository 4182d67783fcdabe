"""Where messages may be sent: URLs without tricks, whose host has public addresses only.

A service sends to any address that its users name, from inside its network. So each address of the host is checked
when a webhook is created and again at each attempt, and the attempt connects to the very address that was checked: a
name may resolve to another one the next time. An IPv6 address that stands for an IPv4 address is judged by the latter,
which ``is_global`` does not do.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Self
from urllib.parse import quote, urlsplit

from service.features.webhooks.errors import AddressRefused
from service.features.webhooks.settings import WebhookSettings
from service.runtime.settings import Settings

MAX_URL: Final = 2000

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
"""The addresses of a host and port, as text."""

_PORTS: Final = {"https": 443, "http": 80}
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH: Final = "/%:@!$&'()*+,;=~-._?"
_LAST_32_BITS: Final = (
    ipaddress.IPv6Network("::ffff:0:0/96"),  # IPv4-mapped, RFC 4291
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible, RFC 4291
    ipaddress.IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated, RFC 2765
    ipaddress.IPv6Network("64:ff9b::/96"),  # NAT64, RFC 6052
)
"""Prefixes of IPv6 addresses whose last 32 bits are an IPv4 address."""
_INTERNAL: Final = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # IETF protocols, RFC 6890, of which clouds use some for metadata
    ipaddress.IPv4Network("168.63.129.16/32"),  # the host of a virtual machine of Azure
    ipaddress.IPv6Network("3fff::/20"),  # documentation, RFC 9637
)
"""Networks that ``is_global`` takes for public ones, in some releases of Python or in all."""
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
"""The 32 bits before the IPv4 address of an ISATAP interface, RFC 5214."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """What the settings permit besides public addresses and https."""

    networks: Sequence[IPv4Network | IPv6Network] = ()
    http: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The rules of these settings."""
        own = settings.of(WebhookSettings)
        networks = tuple(ipaddress.ip_network(text) for text in own.webhook_networks)
        return cls(networks=networks, http=own.webhook_http)

    def permit(self, address: Address) -> bool:
        """Whether messages may be sent to this address."""
        return all(any(part in network for network in self.networks) or _is_public(part) for part in _parts(address))


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be sent to, if its host has the right addresses.

    Attributes:
        url: in its normal form: a lower-case ASCII host, no fragment.
        host: a name or an address, without brackets.
    """

    url: str
    host: str
    port: int

    @property
    def name(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def system_resolver(host: str, port: int) -> Sequence[str]:
    """All addresses that the system knows for a host, IPv4 and IPv6."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def parse(url: str, rules: AddressRules) -> Target:
    """Read a URL.

    Raises:
        AddressRefused: it is no URL to which messages are sent.
    """
    if len(url) > MAX_URL or re.search(r"[\x00-\x20\x7f-\xa0\\]", url):
        raise AddressRefused(f"must be a URL without spaces and backslashes, of at most {MAX_URL} characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressRefused(f"is not a URL: {error}") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and rules.http):
        only = "http:// or https://" if rules.http else "https://"
        remedy = "; the operator may permit http: TAPELINE_WEBHOOK_HTTP=1" if parts.scheme == "http" else ""
        raise AddressRefused(f"must begin with {only}{remedy}")
    if "@" in parts.netloc:
        raise AddressRefused("must have no user name or password: check the signature of each message instead")
    if parts.fragment:
        raise AddressRefused("must have no fragment (#)")
    if port == 0:
        raise AddressRefused("must have a port from 1 to 65535")
    host = _checked_host(parts.hostname or "", is_ipv6="[" in parts.netloc)
    port = port or _PORTS[parts.scheme]
    path = quote(parts.path or "/", safe=_PATH) + (f"?{quote(parts.query, safe=_PATH)}" if parts.query else "")
    netloc = f"[{host}]" if ":" in host else host
    netloc += "" if port == _PORTS[parts.scheme] else f":{port}"
    return Target(f"{parts.scheme}://{netloc}{path}", host, port)


def _checked_host(text: str, *, is_ipv6: bool) -> str:
    if is_ipv6:
        try:
            return str(ipaddress.IPv6Address(text.replace("%", " ")))  # no zone: it names an interface of this machine
        except ValueError as error:
            raise AddressRefused(f"has no valid IPv6 address: [{text[:60]}]") from error
    try:
        # Full-width digits and dots become plain ones here, as they do where the name is resolved.
        host = text.encode("idna").decode().lower().rstrip(".")
    except UnicodeError as error:
        raise AddressRefused(f"has no valid host name: {text[:60]!r}") from error
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 for the system: permit the one form that says what it is.
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise AddressRefused(f"must have an IPv4 address as four numbers from 0 to 255, not {host[:60]}") from error
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressRefused(f"has no valid host name: {text[:60]!r}")
    return host


def resolve(target: Target, rules: AddressRules, resolver: Resolver = system_resolver) -> list[str]:
    """The addresses of a target, all of which may be sent to.

    Raises:
        AddressRefused: the host has no address, or any that must not be sent to. Whoever controls a name may mix
            addresses, to be lucky with one of them.
    """
    try:
        found = list(dict.fromkeys(resolver(target.host, target.port)))
    except OSError as error:
        raise AddressRefused(f"has a host without an address: {target.host}: {error.strerror or error}") from error
    if not found:
        raise AddressRefused(f"has a host without an address: {target.host}")
    for text in found:
        if not rules.permit(ipaddress.ip_address(text.partition("%")[0])):
            where = text if text == target.host else f"{target.host}, which is {text}"
            remedy = "the operator may permit its network: TAPELINE_WEBHOOK_NETWORKS"
            raise AddressRefused(f"leads to an address that is not public: {where}; {remedy}")
    return found


def _parts(address: Address) -> list[Address]:
    """The addresses that an address may lead to: itself, or the IPv4 addresses in it."""
    if isinstance(address, IPv4Address):
        return [address]
    last, before = IPv4Address(int(address) & 0xFFFFFFFF), int(address) >> 32 & 0xFFFFFFFF
    if any(address in network for network in _LAST_32_BITS):
        return [last]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        return [*address.teredo]
    return [address, last] if before in _ISATAP else [address]


def _is_public(address: Address) -> bool:
    # ``is_global`` also accepts what no registry has assigned, site-local addresses and, before 3.13, multicast.
    return (
        address.is_global
        and not any(address in network for network in _INTERNAL)
        and not address.is_multicast
        and not address.is_reserved
        and not (isinstance(address, IPv6Address) and address.is_site_local)
    )
