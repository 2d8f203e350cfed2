"""The proxy as the hub sees it where it is a process of its own: after a restart it knows no way to anybody's server."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import ClientResponseError
from jupyterhub.proxy import ConfigurableHTTPProxy

#: A route that the proxy has as long as it has all others. Nothing leads there; the hub's own pages answer with 404.
MARK = "/phidias/routes-are-complete"
#: Seconds between two looks for it. Each is one question, however many servers there are; JupyterHub's own look goes
#: through all of them and their users in the database, every five minutes.
EVERY = 5.0


class ProxyApart(ConfigurableHTTPProxy):
    """configurable-http-proxy, which gets all its routes again within seconds when it was restarted."""

    _watch: asyncio.Task | None = None
    _whole = False

    async def check_routes(self, user_dict: Any, service_dict: Any, routes: Any = None) -> None:
        if (
            routes is not None
        ):  # asked for before, maybe of a proxy that has ended since: the mark tells nothing of them
            await super().check_routes(user_dict, service_dict, routes)
            return
        self._whole = False
        # The mark is set before the proxy is asked what it has. One that is started again after that has lost the mark with
        # the rest; set afterwards, it could stand in a new proxy for routes that only the old one had. Without the word
        # "jupyterhub" in it, JupyterHub leaves the route alone.
        await self.api_request(MARK, method="POST", body={"target": self.hub.host})
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._keep())
        await super().check_routes(user_dict, service_dict)
        self._whole = True

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                if not await self.complete():
                    self.log.warning("The proxy lacks routes, as after a restart; it gets them again.")
                    await self.check_routes(self.app.users, self.app._service_map)
            except (OSError, TimeoutError, ClientResponseError) as error:
                self.log.warning("The proxy does not answer: %s", error)
            except Exception:
                # Whatever it was, it is told and looked again: without this watch nobody's server would come back.
                self.log.exception("The routes of the proxy could not be looked at.")

    async def complete(self) -> bool:
        """Whether the proxy still has the routes that it got, and got all."""
        try:
            await self.api_request(MARK)
        except ClientResponseError as error:
            if error.status != 404:
                raise
            return False
        return self._whole
