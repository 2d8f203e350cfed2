"""People at a hub, as many at once as one likes: each does what a browser does from the log-in to the own server."""

from __future__ import annotations

import asyncio
import json
import re
import time
from html import unescape

import aiohttp
from yarl import URL


class Browser:
    """One person: cookies of their own, pages, and how long each step took."""

    def __init__(self, address: str, name: str, password: str, patience: float):
        self.address, self.name, self.password = address, name, password
        self.patience = aiohttp.ClientTimeout(total=patience)
        self.seconds: dict[str, float] = {}
        #: What the page of the waiting server said, in its order.
        self.read: list[str] = []
        self.page, self.url, self._session = "", "", None

    async def __aenter__(self) -> Browser:
        # A cookie jar takes cookies of a bare IP address only where it is told that this is meant.
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=self.patience)
        return self

    async def __aexit__(self, *_) -> None:
        await self._session.close()

    async def go(self, path: str, fields: dict[str, str] | None = None) -> None:
        """Open a page, or send the form of a page; a page that is no success is an error."""
        method = "GET" if fields is None else "POST"
        async with self._session.request(method, self.address + path, data=fields) as answer:
            self.page, self.url = await answer.text(), str(answer.url)
            if answer.status != 200:
                said = re.search(r'<p class="spawn-error-msg[^>]*>(.*?)</p>', self.page, re.S)
                shown = said[1].strip() if said else self.page[-200:]
                raise ValueError(f"{method} {path.partition('?')[0]}: {answer.status} {shown}")

    async def send(self, fields: dict[str, str]) -> None:
        """Fill in the form of the page that is open, and send it."""
        where = unescape(re.search(r'<form[^>]* action="([^"]*)"', self.page)[1])
        hidden = re.search(r'name="_xsrf"\s+value="([^"]*)"', self.page)
        await self.go(where, fields | ({"_xsrf": hidden[1]} if hidden else {}))

    async def visit(self) -> None:
        """Log in, choose a server, wait for it, and be let in."""
        begun = time.monotonic()
        await self.go("/hub/login?next=%2Fhub%2Fspawn")
        await self.send({"username": self.name, "password": self.password})
        self.seconds["login"] = time.monotonic() - begun
        await self.send({"profile": "cpu"})
        self.seconds["asked"] = time.monotonic() - begun
        while "/spawn-pending/" in self.url:
            await self._wait(unescape(re.search(r'new EventSource\("([^"]*)"\)', self.page)[1]))
            # The page reloads itself then.
            await self.go(self.url.removeprefix(self.address))
        self.seconds["all"] = time.monotonic() - begun
        if self.page != self.name:
            raise ValueError(f"{self.name} is shown {self.page[:200]!r} at {self.url}")

    async def come_again(self) -> None:
        """Look at the own server, which is there at once, and which the hub has looked at itself after a while."""
        await self.go(f"/user/{self.name}/")
        if self.page != self.name:
            raise ValueError(f"{self.name} is shown {self.page[:200]!r} at {self.url}")
        until = time.monotonic() + 60
        while True:
            server = (await self.ask("GET", f"/users/{self.name}"))[1]["servers"].get("", {})
            if server.get("ready"):
                return
            if server.get("pending") != "check" or time.monotonic() > until:
                raise ValueError(f"The server of {self.name} is {server}")
            await asyncio.sleep(1)

    async def _wait(self, events: str) -> None:
        async with self._session.get(self.address + events.encode().decode("unicode_escape")) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                event = json.loads(line[6:])
                self.read.append(event["message"])
                if event.get("failed"):
                    raise ValueError(event["message"])
                if event.get("ready"):
                    return
        raise ValueError(f"The waiting page ended after {self.read[-1:]}")

    async def ask(self, method: str, path: str) -> tuple[int, dict]:
        """A question to the hub's API, as the page of the hub asks it."""
        cookies = self._session.cookie_jar.filter_cookies(URL(self.address + "/hub/"))
        headers = {"X-XSRFToken": cookies["_xsrf"].value, "Referer": f"{self.address}/hub/home"}
        async with self._session.request(method, f"{self.address}/hub/api{path}", headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else {}

    async def stop(self) -> None:
        """End the own server."""
        status, told = await self.ask("DELETE", f"/users/{self.name}/server")
        if status not in (202, 204):
            raise ValueError(f"The server of {self.name} was not stopped: {status} {told}")


async def failures(browsers: list[Browser], act: str) -> list[str]:
    """Everybody does the same at the same moment; what went wrong, a sentence for each who failed."""

    async def one(browser: Browser) -> str:
        try:
            await getattr(browser, act)()
        except (ValueError, KeyError, TypeError, OSError, aiohttp.ClientError, TimeoutError) as error:
            return f"{browser.name}: {error!r}"[:400]
        return ""

    return [words for words in await asyncio.gather(*map(one, browsers)) if words]
