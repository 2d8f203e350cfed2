"""What the hub's tests share. The classes stand in `running_hub`, a name that no other folder of tests has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "hub-config")]

from running_hub import HUB_CONFIG, Hub, Visitor, environment_without_a_hub, free_ports  # noqa: E402  found by the line above

__all__ = ["HUB_CONFIG", "Hub", "Visitor", "environment_without_a_hub", "free_ports"]


@pytest.fixture(scope="session")
def proxy_installed():
    """The proxy, installed as the set-up does it; a second call finds it."""
    from phidias_hub import proxy

    proxy.install()
    return proxy.command()


@pytest.fixture
def start_hub(tmp_path, proxy_installed):
    """Start hubs; all are stopped at the end of the test."""
    running = []

    def start(site: Path, address: str, certificate: Path | None = None, **variables: str) -> Hub:
        hub = Hub(site, tmp_path, address, certificate, **variables)
        running.append(hub)
        return hub.start()

    yield start
    for hub in running:
        hub.stop()


@pytest.fixture
def refused_hub(tmp_path):
    """Start a hub that is expected to refuse; returns the finished process."""

    def start(site: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-P", str(HUB_CONFIG / "phidias_hub" / "hub.py"), *words],
            env=environment_without_a_hub(PHIDIAS_SITE=str(site), HOME=str(tmp_path), **variables),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return start


@pytest.fixture
def laptop(tmp_path):
    """The site that is shipped for a laptop, on free ports: (site file, address, variables)."""
    port, inner, api = free_ports(3)
    shutil.copy(HUB_CONFIG / "sites" / "laptop.toml", tmp_path / "laptop.toml")
    variables = {
        "PHIDIAS_HUB_PORT": str(port),
        "PHIDIAS_HUB_INTERNAL_PORT": str(inner),
        "PHIDIAS_HUB_PROXY_API_PORT": str(api),
    }
    return tmp_path / "laptop.toml", f"http://127.0.0.1:{port}/{port}", variables


@pytest.fixture
def visit():
    """Open a visitor at an address."""
    return Visitor


@pytest.fixture
def plain_environment():
    """``plain_environment(NAME=value)``: this environment without anything that belongs to a hub or a lab, and more."""
    return environment_without_a_hub
