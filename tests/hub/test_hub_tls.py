"""TLS in front of the hub and between its parts, and a proxy of its own that outlives the hub."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
from phidias_hub import configure, local, proxy, site
from running_hub import HUB_CONFIG, Hub, free_ports

SITE = """
name = "sealed"
[hub]
url = "https://127.0.0.1:{port}"
internal_port = {inner}
proxy_api_port = {api}
proxy = "{proxy}"
internal_tls = true
certificate = "{folder}/certificate.pem"
certificate_key = "{folder}/key.pem"
state = "{folder}/state"
"""


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the hub of a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "key.pem").write_bytes(text)
    (tmp_path / "key.pem").chmod(0o600)
    return tmp_path / "certificate.pem"


@pytest.fixture
def sealed(tmp_path, certificate):
    """A site with TLS everywhere: (site file, address, {name: port})."""

    def make(kind):
        ports = dict(zip(("port", "inner", "api"), free_ports(3), strict=True))
        file = tmp_path / "sealed.toml"
        file.write_text(SITE.format(proxy=kind, folder=tmp_path, **ports))
        return file, f"https://127.0.0.1:{ports['port']}", ports

    return make


def speaks_in_clear(port):
    """Whether a port answers a plain request."""
    try:
        return requests.get(f"http://127.0.0.1:{port}/", timeout=10, allow_redirects=False).status_code > 0
    except requests.RequestException:
        return False


def lets_in_without_a_certificate(port):
    """Whether a port serves somebody who speaks TLS but has no certificate of the hub's."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as plain, anybody.wrap_socket(plain) as sealed:
            sealed.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return sealed.recv(100).startswith(b"HTTP/1.1")
    except (ssl.SSLError, OSError):
        return False


def test_with_tls_everywhere_a_user_gets_a_server_and_nobody_gets_between(sealed, certificate, start_hub, tmp_path):
    file, address, ports = sealed("child")
    hub = start_hub(file, address, certificate)
    visitor = hub.visitor()
    answer = visitor.log_in(local.person(), hub.password())
    assert answer.url.startswith("https://")
    assert all(c.secure for c in visitor.cookies)
    # Only this very host, and only over TLS, may set the cookie of the log-in.
    assert any(c.name == "__Host-jupyterhub-hub-login" or c.name.startswith("__Host-") for c in visitor.cookies)
    page = visitor.start_server(120)
    assert page.status_code == 200
    assert "jupyter-config-data" in page.text

    servers = [
        c.laddr.port
        for p in psutil.Process(hub.process.pid).children(recursive=True)
        if "phidias_hub/server.py" in " ".join(p.cmdline())
        for c in p.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    ]
    assert servers
    for port in (ports["inner"], ports["api"], *servers):
        assert not speaks_in_clear(port), port
        assert not lets_in_without_a_certificate(port), port
    keys = list((tmp_path / "state" / "certificates").rglob("*.key"))
    assert keys
    assert all(stat.S_IMODE(key.stat().st_mode) & 0o077 == 0 for key in keys)


@pytest.fixture
def apart(tmp_path, proxy_installed):
    """Start a site's proxy as its unit does: certificates first, then the proxy."""
    running = []

    def start(hub):
        subprocess.run(
            [sys.executable, "-P", str(HUB_CONFIG / "phidias_hub" / "hub.py"), "--generate-certs"],
            env=hub.environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            timeout=60,
        )
        with open(tmp_path / "proxy.log", "wb") as log:
            environment = {**hub.environment, "PYTHONPATH": str(HUB_CONFIG)}
            process = subprocess.Popen(
                [sys.executable, "-m", "phidias_hub.proxy", "run"], env=environment, stdout=log, stderr=log
            )
        running.append(process)
        return process

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def test_a_proxy_apart_keeps_serving_users_while_the_hub_is_started_again(sealed, certificate, apart, tmp_path):
    file, address, _ = sealed("apart")
    hub = Hub(file, tmp_path, address, certificate, CONFIGPROXY_AUTH_TOKEN=secrets.token_hex(32))
    before = apart(hub)
    hub.start()
    try:
        visitor = hub.visitor()
        visitor.log_in(local.person(), hub.password())
        assert visitor.start_server(120).status_code == 200
        mine = f"/user/{local.person()}/api/status"
        assert visitor.look(mine).status_code == 200
        hub.process.terminate()
        hub.process.wait(40)
        # The proxy is still the one that was there, and says that the hub is away rather than nothing.
        assert before.poll() is None
        assert visitor.look("/hub/home").status_code == 503
        hub.start()
        end = time.monotonic() + 30
        while visitor.look("/hub/home").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.2)
        assert before.poll() is None
    finally:
        hub.stop()


def test_the_options_of_a_proxy_apart_are_those_that_the_hub_would_give(tmp_path):
    """Each option name that JupyterHub gives its own proxy for TLS is given to the one apart."""
    from types import SimpleNamespace

    from jupyterhub.proxy import ConfigurableHTTPProxy

    folder = tmp_path / "certificates"
    names = ("proxy-api", "proxy-client")
    app = SimpleNamespace(
        internal_proxy_certs={
            n: {"keyfile": f"{folder}/{n}/{n}.key", "certfile": f"{folder}/{n}/{n}.crt"} for n in names
        },
        internal_trust_bundles={f"{n}-ca": f"{folder}/{n}-ca_trust.crt" for n in names},
    )
    hub_gives = ConfigurableHTTPProxy._get_ssl_options(SimpleNamespace(app=app))
    assert proxy.internal_tls(folder) == hub_gives


@pytest.mark.parametrize(
    ("url", "listen", "bound"),
    [
        ("http://127.0.0.1:8000", None, "http://127.0.0.1:8000/"),
        ("http://[::1]:8000/lab", None, "http://[::1]:8000/lab/"),
        ("https://lab.example.org", "127.0.0.1:9000", "http://127.0.0.1:9000/"),
        ("https://lab.example.org", None, "http://:443/"),
    ],
)
def test_the_proxy_listens_where_the_site_says(url, listen, bound, tmp_path):
    hub = {"url": url, "proxy": "apart"} | ({"listen": listen} if listen else {})
    told = configure.settings(
        site.checked({"name": "here", "hub": hub}), os.environ, state=tmp_path, site_file=Path("site.toml")
    )
    assert told["JupyterHub.bind_url"] == bound
    assert told["JupyterHub.public_url"] == url.rstrip("/") + "/"
