from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

import pytest

from service.features.webhooks.errors import AddressRefused
from service.features.webhooks.protocol import addresses
from service.features.webhooks.protocol.addresses import AddressRules, Resolver

PUBLIC = AddressRules()


def names(*found: str) -> Resolver:
    return lambda host, port: found


def allowing(*networks: str, http: bool = False) -> AddressRules:
    return AddressRules(networks=[ipaddress.ip_network(text) for text in networks], http=http)


def check(url: str, rules: AddressRules = PUBLIC, resolver: Resolver = addresses.system_resolver) -> Sequence[str]:
    return addresses.resolve(addresses.parse(url, rules), rules, resolver)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://Example.ORG", "https://example.org/"),
        ("https://example.org:443/a b".replace(" ", "%20"), "https://example.org/a%20b"),
        ("https://example.org.:8443/hooks?a=1&b=ä", "https://example.org:8443/hooks?a=1&b=%C3%A4"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://[2606:4700::1111]:8443/", "https://[2606:4700::1111]:8443/"),
        ("https://93.184.216.34/x", "https://93.184.216.34/x"),
    ],
)
def test_a_url_is_stored_in_its_normal_form(url: str, normal: str) -> None:
    assert addresses.parse(url, PUBLIC).url == normal
    assert addresses.parse(normal, PUBLIC).url == normal


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.org/", "TAPELINE_WEBHOOK_HTTP=1"),
        ("ftp://example.org/", "begin with https://"),
        ("//example.org/", "begin with https://"),
        ("https://ann:secret@example.org/", "user name"),
        ("https://example.org@127.0.0.1/", "user name"),
        ("https://@example.org/", "user name"),
        ("https://example.org/#top", "fragment"),
        ("https://example.org\\@127.0.0.1/", "backslash"),
        ("https://example.org/\r\nHost: other", "spaces"),
        ("https:///path", "host name"),
        ("https://exa mple.org/", "spaces"),
        ("https://example..org/", "host name"),
        ("https://-example.org/", "host name"),
        ("https://example.org:0/", "port"),
        ("https://example.org:99999/", "URL"),
        ("https://[::1%25eth0]/", "IPv6"),
        ("https://[fe80::1%eth0]/", "IPv6"),
        ("https://[v1.a]/", "must|is|has"),
        ("https://2130706433/", "four numbers"),
        ("https://017700000001/", "four numbers"),
        ("https://0x7f.1/", "four numbers"),
        ("https://0x7f000001/", "four numbers"),
        ("https://0177.0.0.1/", "four numbers"),
        ("https://127.1/", "four numbers"),
        ("https://1.2.3.4.5/", "four numbers"),
        ("https://" + "a" * 2000, "spaces"),
    ],
)
def test_a_url_with_a_trick_is_refused(url: str, says: str) -> None:
    with pytest.raises(AddressRefused, match=says):
        addresses.parse(url, PUBLIC)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "168.63.129.16",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[2002:7f00:1::1]",
        "[2002:a9fe:a9fe::]",
        "[2001:0:5db8:d822:0:0:80ff:fffe]",
        "[2001:0:7f00:1::a247:27dd]",
        "[2606:4700::5efe:10.0.0.1]",
        "[fe80::1]",
        "[fec0::1]",
        "[fd00::1]",
        "[ff02::1]",
        "[ff0e::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[64:ff9b::a83f:8110]",
        "[4000::1]",
    ],
)
def test_an_address_that_is_not_public_is_refused_in_every_notation(host: str) -> None:
    with pytest.raises(AddressRefused, match="not public"):
        check(f"https://{host}/")


@pytest.mark.parametrize(
    "host",
    ["93.184.216.34", "[2606:4700::1111]", "[64:ff9b::5db8:d822]", "[2002:5db8:d822::1]", "[::ffff:93.184.216.34]"],
)
def test_a_public_address_is_accepted(host: str) -> None:
    assert check(f"https://{host}/")


@pytest.mark.parametrize(
    "found",
    [
        ("127.0.0.1",),
        ("93.184.216.34", "10.0.0.1"),
        ("93.184.216.34", "::1"),
        ("64:ff9b::a9fe:a9fe",),
        ("fe80::1%eth0",),
    ],
)
def test_a_name_is_refused_if_any_of_its_addresses_is(found: tuple[str, ...]) -> None:
    with pytest.raises(AddressRefused, match=r"hooks.example.org, which is .*TAPELINE_WEBHOOK_NETWORKS"):
        check("https://hooks.example.org/", resolver=names(*found))


def test_the_system_resolves_localhost_to_an_address_that_is_refused() -> None:
    with pytest.raises(AddressRefused, match="not public: localhost, which is"):
        check("https://localhost/")


def fails(host: str, port: int) -> Sequence[str]:
    raise OSError(-2, "Name or service not known")


@pytest.mark.parametrize("resolver", [names(), fails])
def test_a_name_without_an_address_is_refused(resolver: Callable[[str, int], Sequence[str]]) -> None:
    with pytest.raises(AddressRefused, match="without an address"):
        check("https://nowhere.example/", resolver=resolver)


def test_the_operator_may_permit_networks_and_http() -> None:
    rules = allowing("10.0.0.0/8", "fd00::/8", http=True)
    assert check("http://10.1.2.3:8080/", rules) == ["10.1.2.3"]
    assert check("https://a.example/", rules, names("10.1.1.1", "fd00::1", "93.184.216.34"))
    assert check("https://[64:ff9b::a01:203]/", rules)
    for url in ("http://127.0.0.1/", "https://[64:ff9b::7f00:1]/", "https://11.0.0.1.example/"):
        with pytest.raises(AddressRefused):
            check(url, rules, names("192.168.0.1") if url.endswith("example/") else addresses.system_resolver)


def test_a_network_of_ipv6_does_not_permit_ipv4_addresses_in_it() -> None:
    with pytest.raises(AddressRefused, match="not public"):
        check("https://[::ffff:127.0.0.1]/", allowing("::/0"))
