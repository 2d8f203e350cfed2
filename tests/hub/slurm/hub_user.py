"""A person at the hub of these tests: logged in, with a token, a server, and a kernel in it."""

from __future__ import annotations

import asyncio
import json
import time

import requests
from health import execute
from running_hub import Visitor
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect


class HubUser:
    """What a browser and a notebook of one user do, by requests."""

    def __init__(self, address: str, name: str, password: str):
        self.address, self.name = address, name
        self.browser = Visitor(address)
        answer = self.browser.log_in(name, password, allow_redirects=False)
        assert answer.status_code == 302, answer.text
        self.browser.look("/hub/token")
        self.token = self.new_token()

    def new_token(self) -> str:
        """A token that no server has seen."""
        made = self.browser.post(
            f"{self.address}/hub/api/users/{self.name}/tokens",
            json={"note": "test"},
            headers={"X-XSRFToken": self.browser.xsrf("/hub/")},
            timeout=30,
        )
        assert made.ok, made.text
        return made.json()["token"]

    def ask(self, method: str, path: str, body=None, token: str | None = None, seconds: float = 60):
        """An answer of the hub or a server, asked with the token."""
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"token {token or self.token}"}
            return session.request(method, self.address + path, json=body, headers=headers, timeout=seconds)

    def server(self) -> dict:
        return self.ask("GET", f"/hub/api/users/{self.name}").json()["servers"].get("", {})

    def start(self, seconds: float = 60, **options) -> None:
        """Ask for a server and wait until it is ready."""
        answer = self.ask("POST", f"/hub/api/users/{self.name}/server", options)
        assert answer.status_code in (201, 202), answer.text
        end = time.monotonic() + seconds
        while not self.server().get("ready"):
            assert time.monotonic() < end, f"The server of {self.name} is not ready: {self.server()}"
            time.sleep(0.2)

    def kernel(self, kind: str = "python3") -> str:
        """A new kernel's id."""
        made = self.ask("POST", f"/user/{self.name}/api/kernels", {"name": kind})
        assert made.status_code == 201, made.text
        return made.json()["id"]

    def run(self, kernel: str, code: str, seconds: float = 120) -> str:
        """What code prints in a kernel of this user's server."""

        async def told() -> str:
            channel = await asyncio.wait_for(self.websocket(f"api/kernels/{kernel}/channels"), 30)
            try:
                return await asyncio.wait_for(execute(channel, code), seconds)
            finally:
                channel.close()

        return asyncio.run(told())

    async def websocket(self, path: str, headers: dict | None = None, **options):
        """A websocket to this user's server; with the token where no other headers are given."""
        address = f"{self.address.replace('http', 'ws', 1)}/user/{self.name}/{path}"
        headers = {"Authorization": f"token {self.token}"} if headers is None else headers
        return await websocket_connect(HTTPRequest(address, headers=headers), **options)

    def refused(self, path: str, headers: dict, **options) -> int:
        """The status with which a websocket is refused; 101 where it is opened."""

        async def opened() -> int:
            try:
                channel = await asyncio.wait_for(self.websocket(path, headers, **options), 20)
            except HTTPClientError as error:
                return error.code
            channel.close()
            return 101

        return asyncio.run(opened())

    def words(self, kernel: str, code: str) -> dict:
        """The JSON that code prints."""
        told = self.run(kernel, code)
        return json.loads(next(line for line in told.splitlines() if line.startswith("{")))
