"""A proxy that is a process of its own gets its routes again, at whatever moment it was restarted."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from types import SimpleNamespace

import pytest
import requests
from jupyterhub.objects import Hub as HubServer
from phidias_hub import routes

TOKEN = "a-token-of-this-test"


class RealProxy:
    """configurable-http-proxy on free ports; it knows no route when it starts."""

    def __init__(self, command: list[str], port: int, api: int):
        self.words = [*command, "--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1"]
        self.words += ["--api-port", str(api), "--log-level", "error"]
        self.api = f"http://127.0.0.1:{api}"
        self.process = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.words, env=os.environ | {"CONFIGPROXY_AUTH_TOKEN": TOKEN})
        end = time.monotonic() + 30
        while not self.routes():
            assert time.monotonic() < end, "The proxy does not answer."
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def routes(self) -> list[str]:
        """The paths of all routes; with a blank, so that an empty list means that nobody answers."""
        try:
            answer = requests.get(f"{self.api}/api/routes", headers={"Authorization": f"token {TOKEN}"}, timeout=5)
            return ["", *answer.json()]
        except requests.ConnectionError:
            return []


@pytest.fixture
def proxy(proxy_installed, free_ports_of_two):
    real = RealProxy(proxy_installed, *free_ports_of_two)
    real.start()
    yield real
    real.kill()


@pytest.fixture
def free_ports_of_two():
    from running_hub import free_ports

    return free_ports(2)


def hub_side(proxy: RealProxy, kind: type = routes.ProxyApart) -> routes.ProxyApart:
    hub = HubServer(ip="127.0.0.1", port=9, base_url="/hub/", routespec="/")
    app = SimpleNamespace(users={}, _service_map={}, hub=hub)
    return kind(app=app, hub=hub, auth_token=TOKEN, api_url=proxy.api, should_start=False)


async def comes_back(side: routes.ProxyApart, proxy: RealProxy) -> bool:
    end = time.monotonic() + 10
    while "/" not in proxy.routes():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    side._watch.cancel()
    return True


@pytest.fixture
def looked_often(monkeypatch):
    monkeypatch.setattr(routes, "EVERY", 0.2)


def test_a_proxy_that_was_restarted_gets_its_routes_again(proxy, looked_often):
    async def story() -> None:
        side = hub_side(proxy)
        await side.check_routes({}, {})
        assert "/" in proxy.routes()
        proxy.kill()
        proxy.start()
        assert await comes_back(side, proxy)

    asyncio.run(story())


def test_one_that_is_restarted_while_its_routes_are_compared_gets_them_too(proxy, looked_often):
    class RestartedMeanwhile(routes.ProxyApart):
        restarted = False

        async def get_all_routes(self):
            found = await super().get_all_routes()
            if not self.restarted and found:
                self.restarted = True
                proxy.kill()
                proxy.start()
            return found

    async def story() -> None:
        first = hub_side(proxy)
        await first.check_routes({}, {})
        first._watch.cancel()  # that hub is killed; the proxy keeps its routes
        side = hub_side(proxy, RestartedMeanwhile)
        await side.check_routes({}, {})
        assert side.restarted
        assert await comes_back(side, proxy)

    asyncio.run(story())


def test_routes_that_could_not_be_set_are_set_later(proxy, looked_often):
    class Refusing(routes.ProxyApart):
        refused = 0

        async def add_hub_route(self, hub):
            if self.refused < 2:
                self.refused += 1
                raise ValueError("no database at this moment")
            await super().add_hub_route(hub)

    async def story() -> None:
        side = hub_side(proxy, Refusing)
        with pytest.raises(ValueError):
            await side.check_routes({}, {})
        assert await comes_back(side, proxy)
        assert side.refused == 2

    asyncio.run(story())
