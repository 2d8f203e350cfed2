"""Federated log-in against a provider that really speaks OpenID Connect: a code, a token, and who it is."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from running_hub import ROOT, free_ports

CLIENT, SECRET = "phidias-lab", "the-secret-of-this-test"


class Provider(ThreadingHTTPServer):
    """An OpenID Connect provider (code flow with PKCE) at which `claims` are logged in already."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.claims: dict = {}
        self.codes: dict[str, dict] = {}
        self.tokens: dict[str, dict] = {}
        self.refused: list[str] = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self):
        place = urlsplit(self.path)
        asked = {k: v[0] for k, v in parse_qs(place.query).items()}
        if place.path == "/authorize":
            if asked.get("client_id") != CLIENT or asked.get("response_type") != "code":
                return self._refuse(400, "unknown client")
            code = secrets.token_urlsafe(16)
            self.server.codes[code] = {**asked, "claims": self.server.claims}
            self.send_response(302)
            back = urlencode({"code": code, "state": asked["state"]})
            self.send_header("Location", f"{asked['redirect_uri']}?{back}")
            self.end_headers()
            return None
        if place.path == "/userinfo":
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            claims = self.server.tokens.get(token)
            return self._say(claims) if claims is not None else self._refuse(401, "unknown token")
        return self._refuse(404, "no such page")

    def do_POST(self):
        asked = {k: v[0] for k, v in parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).items()}
        basic = self.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            asked["client_id"], asked["client_secret"] = base64.b64decode(basic[6:]).decode().split(":", 1)
        if (asked.get("client_id"), asked.get("client_secret")) != (CLIENT, SECRET):
            return self._refuse(401, "invalid_client")
        given = self.server.codes.pop(asked.get("code"), None)
        if given is None or given["redirect_uri"] != asked.get("redirect_uri"):
            return self._refuse(400, "invalid_grant")
        digest = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != given.get("code_challenge"):
            return self._refuse(400, "code_verifier does not fit")
        token = secrets.token_urlsafe(16)
        self.server.tokens[token] = given["claims"]
        return self._say({"access_token": token, "token_type": "Bearer", "expires_in": 60, "scope": given["scope"]})

    def _say(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status, why):
        self.server.refused.append(why)
        self._say({"error": why}, status)

    def log_message(self, *words):
        pass


@pytest.fixture
def provider():
    server = Provider()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


HUB = """
name = "federated"
[hub]
url = "http://127.0.0.1:{port}"
internal_port = {inner}
proxy_api_port = {api}
[login]
kind = "oidc"
"""
SITE = (
    HUB
    + """
[login.oidc]
title = "Log in with the test federation"
client_id = "phidias-lab"
authorize_url = "{provider}/authorize"
token_url = "{provider}/token"
userdata_url = "{provider}/userinfo"
scope = ["openid", "profile"]
groups_claim = "groups"
allowed_groups = ["earth-observation"]
accounts = {{ "0000-0001-2345-6789@orcid.org" = "ada" }}
"""
)
ADA = {"sub": "0000-0001-2345-6789@orcid.org", "groups": ["earth-observation", "others"]}


@pytest.fixture
def hub(provider, tmp_path, start_hub):
    """A hub whose users come from the provider."""
    port, inner, api = free_ports(3)
    file = tmp_path / "federated.toml"
    file.write_text(SITE.format(port=port, inner=inner, api=api, provider=provider.address))
    return start_hub(file, f"http://127.0.0.1:{port}", PHIDIAS_OIDC_SECRET=SECRET)


def log_in(hub, button="Log in with the test federation"):
    """Follow the log-in button, through the provider and back."""
    visitor = hub.visitor()
    page = visitor.look("/hub/login")
    page.encoding = "utf-8"  # which the page says, and its header does not
    assert re.search(rf">\s*{re.escape(button)}\s*</a>", page.text)
    return visitor, visitor.look("/hub/oauth_login?next=%2Fhub%2Fhome")


def test_a_person_of_the_federation_gets_the_account_that_the_site_gives_them(hub, provider):
    provider.claims = ADA
    _, page = log_in(hub)
    assert page.status_code == 200, page.text
    assert page.url.endswith("/hub/home")
    assert 'user: "ada"' in page.text
    assert provider.refused == []

    # A person without an account, and one of another group: refused, and the page says why.
    provider.claims = {"sub": "0000-0009@orcid.org", "groups": ["earth-observation"]}
    stranger, page = log_in(hub)
    assert page.status_code == 403
    # Quotation marks are written as entities in the page.
    assert "No account of this machine belongs to you. The provider knows you as" in page.text
    assert "0000-0009@orcid.org" in page.text
    assert stranger.look("/hub/home", allow_redirects=False).status_code == 302

    provider.claims = {"sub": ADA["sub"], "groups": ["others"]}
    _, page = log_in(hub)
    assert page.status_code == 403
    assert "The account ada is in none of the groups earth-observation" in page.text

    # Somebody whose name at the provider is ada: the account is another person's.
    provider.claims = {"sub": "ada", "groups": ["earth-observation"]}
    _, page = log_in(hub)
    assert page.status_code == 403

    # An answer that was asked for by another browser, or by nobody.
    provider.claims = ADA
    victim = hub.visitor()
    forged = victim.look("/hub/oauth_callback?code=x&state=forged")
    assert forged.status_code in (400, 403)
    attacker = hub.visitor()
    away = attacker.look("/hub/oauth_login", allow_redirects=False)
    back = attacker.get(away.headers["Location"], allow_redirects=False).headers["Location"]
    crossed = victim.get(back)
    assert crossed.status_code in (400, 403)
    assert victim.look("/hub/home", allow_redirects=False).status_code == 302
    # In the browser that asked, the same answer is good, once.
    assert attacker.get(back, allow_redirects=False).status_code == 302
    assert hub.visitor().get(back, allow_redirects=False).status_code in (400, 403)

    # The secret stands nowhere in what the hub wrote.
    assert SECRET not in hub.said()


def test_a_provider_that_does_not_answer_is_a_page_and_not_a_hanging_hub(hub, provider):
    provider.claims = ADA
    visitor = hub.visitor()
    away = visitor.look("/hub/oauth_login", allow_redirects=False)
    back = visitor.get(away.headers["Location"], allow_redirects=False).headers["Location"]
    provider.codes.clear()  # the provider has forgotten the code
    assert visitor.get(back, timeout=60).status_code in (400, 403, 500)
    assert hub.visitor().look("/hub/api/").status_code == 200


PAGE = (ROOT / "docs" / "operate" / "hub.md").read_text(encoding="utf-8")
#: The page's examples of a federation, by the name in the title's parentheses or at its end.
EXAMPLES = {
    re.search(r'title = ".*?(\w+)\)?"', text)[1]: text
    for text in re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    if "[login.oidc]" in text
}


def test_the_documentation_shows_three_federations():
    assert list(EXAMPLES) == ["eduGAIN", "RENATER", "ORCID"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_documented_federation_lets_in_whom_it_names_and_nobody_else(name, provider, tmp_path, start_hub):
    text, oidc = EXAMPLES[name], tomllib.loads(EXAMPLES[name])["login"]["oidc"]
    port, inner, api = free_ports(3)
    for key, instead in {
        "authorize_url": f"{provider.address}/authorize",
        "token_url": f"{provider.address}/token",
        "userdata_url": f"{provider.address}/userinfo",
        "client_id": CLIENT,
    }.items():
        text = text.replace(f'{key} = "{oidc[key]}"', f'{key} = "{instead}"')
    file = tmp_path / "documented.toml"
    file.write_text(HUB.format(port=port, inner=inner, api=api) + text, encoding="utf-8")
    hub = start_hub(file, f"http://127.0.0.1:{port}", PHIDIAS_OIDC_SECRET=SECRET)
    ((known_as, account),) = oidc["accounts"].items()
    claims = {oidc["username_claim"]: known_as}
    if "groups_claim" in oidc:
        claims[oidc["groups_claim"]] = [*oidc["allowed_groups"], "another"]
    provider.claims = claims
    _, page = log_in(hub, oidc["title"])
    assert page.url.endswith("/hub/home"), page.text
    assert f'user: "{account}"' in page.text
    provider.claims = {oidc["username_claim"]: "somebody-else"}
    _, page = log_in(hub, oidc["title"])
    assert page.status_code == 403
    assert "somebody-else" in page.text
