"""The hub is away for a moment: a server goes on answering, also those about whom it has to ask the hub first."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlsplit

import pytest
import requests
from phidias_hub import local


@pytest.fixture
def served(laptop, start_hub, tmp_path):
    """A hub and the one server behind it; the server forgets after a second whom it has asked about."""
    site, address, variables = laptop
    configuration = tmp_path / "forgetful.py"
    configuration.write_text("c.HubAuth.cache_max_age = 1\n")
    work = tmp_path / "work"
    work.mkdir()
    (work / "random.py").write_text("raise SystemExit('This is no module of the server.')\n")
    variables |= {"PHIDIAS_HUB_SERVER_CONFIGURATION": str(configuration), "PHIDIAS_HUB_FOLDER": str(work)}
    hub = start_hub(site, address, **variables)
    hub.browser = hub.visitor()
    hub.browser.log_in(local.person(), hub.password())
    hub.browser.start_server()
    return hub


def new_token(hub) -> str:
    made = hub.browser.post(
        f"{hub.address}/hub/api/users/{local.person()}/tokens",
        json={"note": "test"},
        headers={"X-XSRFToken": hub.browser.xsrf("/hub/"), "Referer": f"{hub.address}/hub/token"},
        timeout=30,
    )
    return made.json()["token"]


def own_address(hub) -> str:
    """The server's own, past the proxy: this proxy is a child of the hub and is started again with it."""
    server = next(p for p in hub.children() if "phidias_hub/server.py" in " ".join(p.cmdline()))
    return server.environ()["JUPYTERHUB_SERVICE_URL"]


class Asked(threading.Thread):
    """A request that somebody sends while the hub is away."""

    def __init__(self, address: str, token: str = "", cookies=None):
        super().__init__(daemon=True)
        self.address, self.cookies, self.status = address, cookies, 0
        self.headers = {"Authorization": f"token {token}"} if token else {}
        self.start()

    def run(self) -> None:
        begun = time.monotonic()
        self.status = requests.get(self.address, headers=self.headers, cookies=self.cookies, timeout=60).status_code
        self.seconds = time.monotonic() - begun


def test_a_request_waits_for_the_hub_that_has_to_say_whose_it_is(served):
    address = own_address(served) + "api/me"
    fresh = new_token(served)
    time.sleep(1.5)  # until the server has forgotten the browser
    served.kill()
    asked = [
        Asked(address, fresh),
        Asked(address, cookies=served.browser.cookies.get_dict(path=urlsplit(address).path.removesuffix("api/me"))),
        Asked(address, "a-token-that-nobody-has"),
    ]
    time.sleep(2)
    assert [request.status for request in asked] == [0, 0, 0]
    served.start()
    for request in asked:
        request.join(30)
    assert [request.status for request in asked] == [200, 200, 403]
    # A refusal is one at once while the hub is there.
    refused = Asked(address, "another-token-that-nobody-has")
    refused.join(30)
    assert refused.status == 403
    assert refused.seconds < 5
