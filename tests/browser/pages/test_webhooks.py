"""The pages of webhooks, on a whole service whose scheduler sends to a receiver of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from service.local import LocalStack
from service.runtime.settings import Settings
from tests.browser.accessibility import serious_violations
from tests.browser.conftest import Visit
from tests.service.features.webhooks.receivers import Receiver, answer, receive


@pytest.fixture(scope="module")
def sending_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    environ = {"TAPELINE_HOME": str(tmp_path_factory.mktemp("home")), "TAPELINE_PORT": "0"}
    environ |= {"TAPELINE_WEBHOOK_NETWORKS": "127.0.0.0/8", "TAPELINE_WEBHOOK_HTTP": "1"}
    with LocalStack(Settings.from_env(environ, cores=1)) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as running:
        yield running


def create(page: Page, url: str, description: str = "") -> str:
    """Create a webhook with the form; returns the secret that the dialog shows."""
    page.get_by_label("URL").fill(url)
    page.get_by_label("Description").fill(description)
    page.get_by_label("a job was cancelled").check()
    page.get_by_role("button", name="Create webhook").click()
    expect(page.locator("#made")).to_be_visible()
    secret = page.locator("#made-secret").inner_text()
    assert page.locator("#made").evaluate("(dialog) => dialog.scrollWidth <= dialog.clientWidth"), "all can be copied"
    page.get_by_role("button", name="Done").click()
    return secret


@pytest.mark.parametrize("width", [1280, 390])
def test_a_webhook_from_its_creation_to_its_end(
    open_window: Callable[..., Visit], sending_stack: LocalStack, receiver: Receiver, width: int
) -> None:
    page = open_window(sending_stack.url, own=True, width=width, height=900).open("/ui/usage")
    page.get_by_role("link", name="Webhooks").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Webhooks")
    secret = create(page, receiver.url, "the chat of the team")
    receiver.verify = secret
    expect(page.locator("#webhooks")).to_contain_text(receiver.url)
    assert secret not in page.content()
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("link", name=receiver.url).click()

    page.get_by_role("button", name="Send a test").click()
    delivered = page.locator("#deliveries tbody tr", has_text="webhook.test")
    expect(delivered).to_contain_text("delivered", timeout=20_000)
    assert receiver.received[0].verified(secret)["type"] == "webhook.test"

    receiver.respond = answer(503, "<b>the kitchen is on fire</b>")
    with httpx.Client(base_url=sending_stack.url) as http:
        job = http.post("/jobs", json={"kind": "gan", "name": "a cancelled one", "epochs": 500}).json()
        http.post(f"/jobs/{job['id']}/cancel")
    row = page.locator("#deliveries tbody tr", has_text="job.cancelled")
    expect(row).to_contain_text("the response is 503", timeout=20_000)
    row.locator("summary").click()
    expect(row).to_contain_text("<b>the kitchen is on fire</b>")
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    receiver.respond = answer(204)
    row.get_by_role("button", name="Send job.cancelled").click()
    expect(row).to_contain_text("delivered", timeout=20_000)
    expect(row.locator("details")).to_have_attribute("open", "")

    page.get_by_role("button", name="Rotate secret").click()
    page.locator("#rotate").get_by_role("button", name="Rotate").click()
    expect(page.locator("#made-secret")).to_contain_text("whsec_")
    assert page.locator("#made-secret").inner_text() != secret
    page.get_by_role("button", name="Done").click()
    expect(page.locator("#facts")).to_contain_text("also signs until")

    receiver.respond = answer(410)
    receiver.verify = None
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator("#facts")).to_contain_text("410 Gone", timeout=20_000)
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_role("button", name="Disable")).to_be_visible()
    page.get_by_role("button", name="Delete…").click()
    page.locator("#remove").get_by_role("button", name="Delete").click()
    expect(page.locator("#webhooks")).to_contain_text("No webhooks yet")


@pytest.mark.stack
def test_an_address_that_is_refused_is_explained_beside_the_form(
    open_window: Callable[..., Visit], sending_stack: LocalStack
) -> None:
    visit = open_window(sending_stack.url, own=True)
    visit.error_log.expected = ["422"]
    page = visit.open("/ui/webhooks")
    page.get_by_label("URL").fill("https://10.0.0.1/hook")
    page.get_by_role("button", name="Create webhook").click()
    expect(page.get_by_role("alert")).to_contain_text("url: leads to an address that is not public: 10.0.0.1")
    expect(page.get_by_label("URL")).to_have_value("https://10.0.0.1/hook")
