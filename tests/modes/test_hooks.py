"""Hooks as their receivers see them: servers on this host, real TLS, and every way in which they fail."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import http.server
import ipaddress
import json
import os
import socketserver
import ssl
import threading
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pystac
import pytest
import shapely

from phidias_lab.errors import ParameterError
from phidias_lab.lake import events
from phidias_lab.modes import hooks


def found(count=1, kind="fire", synthetic=False, **more):
    table = pd.DataFrame(
        {
            "time": np.datetime64("2022-06-01", "s") + np.arange(count) * np.timedelta64(1, "h"),
            "kind": kind,
            "geometry": shapely.box(10, 40, 11, 41),
            "CO": 12.5,
            **more,
        }
    )
    rows = events.shaped(table, chain="probe.events", run="r", product="/p", source="g.nc", synthetic=synthetic)
    return rows.to_dict("records")


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@contextlib.contextmanager
def serving(server):
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def receiver(answers=(), tls=None):
    """A web server that notes what it is sent; it gives these answers, then 204."""
    got, answers = [], list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            got.append(SimpleNamespace(path=self.path, headers=self.headers, body=body))
            code = answers.pop(0) if answers else 204
            self.send_response(code)
            if code in (302, 307):
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        yield port, got


class Mailbox(socketserver.StreamRequestHandler):
    """As much of RFC 5321, 3207 and 4954 as a client needs."""

    def handle(self):
        server, secure = self.server, False
        self.say("220 here")
        sender, to = None, []
        while line := self.rfile.readline().decode().strip():
            word = line[:4].upper()
            if word == "EHLO":
                offers = ["AUTH PLAIN"] if secure else ["STARTTLS"] if server.tls else []
                for offer in ["127.0.0.1", *offers][:-1]:
                    self.say(f"250-{offer}")
                self.say(f"250 {(['127.0.0.1', *offers])[-1]}")
            elif word == "STAR":
                self.say("220 go")
                self.connection = server.tls.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile, secure = self.connection.makefile("rb"), self.connection.makefile("wb", 0), True
            elif word == "AUTH":
                server.logins.append(base64.b64decode(line.split()[2]).decode().split("\0")[1:])
                self.say("235 yes")
            elif word == "MAIL":
                sender, to = line, []
                self.say("250 ok")
            elif word == "RCPT":
                to.append(line)
                self.say("250 ok")
            elif word == "DATA":
                self.say("354 go")
                lines = []
                while (text := self.rfile.readline()) != b".\r\n":
                    lines.append(text)
                server.got.append(SimpleNamespace(sender=sender, to=to, text=b"".join(lines).decode(), secure=secure))
                self.say("250 taken")
            else:
                self.say("221 bye" if word == "QUIT" else "250 ok")
                if word == "QUIT":
                    return

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())


@contextlib.contextmanager
def mailbox(tls=None):
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox)
    server.tls, server.got, server.logins = tls, [], []
    server.handle_error = lambda *_: None  # a client that turns away is no error of the test
    with serving(server) as port:
        yield port, server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that nobody trusts yet, and a server's context with it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(own, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(own.private_bytes(serialization.Encoding.PEM, *form))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


@pytest.fixture
def queue(tmp_path):
    """``queue(hook)``: a queue that sends; what it remarks is in its list ``said``."""
    begun = []

    def begin(hook, name="hook"):
        said = []
        found = hooks.Queue(name, hook, tmp_path / name, said.append)
        found.said = said
        found.start()
        begun.append(found)
        return found

    yield begin
    for one in begun:
        one.stop()


def loaded(tmp_path, text):
    (tmp_path / "hooks.yaml").write_text(text)
    return hooks.load(tmp_path / "hooks.yaml")


# Webhook --------------------------------------------------------------------------------------------------------------


def test_a_webhook_is_sent_each_event_once_with_a_signature_that_only_the_secret_makes(queue, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    with receiver() as (port, got):
        text = f"webhook:\n  url: http://127.0.0.1:{port}/in\n  secret: {{environment: HOOK_SECRET}}\n"
        hook = loaded(tmp_path, text)["webhook"]
        assert "s3cret" not in repr(hook)
        sender = queue(hook)
        for event in found(3, synthetic=True):
            sender.add(event)
        until(lambda: len(got) == 3 and not sender.left())
        for event in found(3, synthetic=True):
            sender.add(event)  # as a watch does that was killed before it noted that it had
        assert sender.left() == 0
        again = queue(hook)
        again.add(found(3)[0])
        time.sleep(0.5)
    assert len(got) == 3
    for request in got:
        signed = request.headers["X-Phidias-Timestamp"].encode() + b"." + request.body
        expected = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
        assert request.headers["X-Phidias-Signature"] == f"sha256={expected}"
        item = json.loads(request.body)
        pystac.Item.from_dict(item).validate()
        assert item["id"] == request.headers["X-Phidias-Event"]
        assert item["properties"]["phidias:synthetic"] is True
    assert len({request.headers["X-Phidias-Event"] for request in got}) == 3


def test_what_a_server_refuses_is_sent_again_until_it_is_taken(queue, monkeypatch):
    monkeypatch.setattr(hooks, "FIRST_PAUSE", 0.3)
    with receiver([500, 302, 404]) as (port, got):
        sender = queue(hooks.Webhook(f"http://127.0.0.1:{port}/in", "x"))
        (event,) = found()
        sender.add(event)
        until(lambda: sender.said)
        assert sender.drain() == 1  # it does not wait for what fails
        until(lambda: not sender.left(), 30)
    assert [request.path for request in got] == ["/in"] * 4  # a redirection is not followed
    assert len({request.headers["X-Phidias-Event"] for request in got}) == 1
    assert len(sender.said) == 1
    assert "HTTP Error 500" in sender.said[0]


def test_an_event_that_is_never_taken_does_not_hold_up_the_others(queue, monkeypatch):
    monkeypatch.setattr(hooks, "FIRST_PAUSE", 0.05)

    class Picky(hooks.Webhook):
        def send(self, event):
            if event["kind"] == "bad":
                raise OSError("no")
            super().send(event)

    with receiver() as (port, got):
        sender = queue(Picky(f"http://127.0.0.1:{port}/in", "x"))
        for kind in ("bad", "good", "better"):
            sender.add(found(kind=kind)[0])
        until(lambda: sender.left() == 1)
    assert len(got) == 2


def test_an_event_waits_on_disk_for_a_server_that_is_not_there(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(hooks, "FIRST_PAUSE", 0.05)
    sender = queue(hooks.Webhook("http://127.0.0.1:1/in", "x"))
    for event in found(5):
        sender.add(event)
    until(lambda: sender._failures == 4)
    sender.stop()
    assert sender.left() == 5
    assert len(sender.said) == 1  # one outage is one remark
    with receiver() as (port, got):
        later = queue(hooks.Webhook(f"http://127.0.0.1:{port}/in", "x"))
        until(lambda: not later.left())
    assert len(got) == 5
    assert len(list((tmp_path / "hook" / "sent").iterdir())) == 5


def test_two_processes_with_one_queue_send_each_event_once(queue):
    with receiver() as (port, got):
        senders = [queue(hooks.Webhook(f"http://127.0.0.1:{port}/in", "x")) for _ in range(2)]
        for number, event in enumerate(found(20)):
            senders[number % 2].add(event)
        until(lambda: not senders[0].left())
        senders[0].stop()
        senders[1].stop()
    assert len(got) == 20
    assert len({request.headers["X-Phidias-Event"] for request in got}) == 20


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(queue, certificate, monkeypatch):
    path, context = certificate
    with receiver(tls=context) as (port, got):
        hook = hooks.Webhook(f"https://127.0.0.1:{port}/in", "x")
        (event,) = found()
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            hook.send(event)
        assert not got
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        hook.send(event)
        assert len(got) == 1


# E-mail ---------------------------------------------------------------------------------------------------------------


def email(tmp_path, port, more=""):
    text = f"email:\n  host: 127.0.0.1\n  port: {port}\n  from: lab@example.org\n  to: [a@b.org, b@b.org]\n{more}"
    return loaded(tmp_path, text)["email"]


def test_a_mail_goes_over_tls_after_a_login(queue, tmp_path, certificate, monkeypatch):
    path, context = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "smtp").write_text("geheim\n")
    with mailbox(context) as (port, server):
        hook = email(tmp_path, port, "  user: lab\n  password: {credential: smtp}\n")
        assert "geheim" not in repr(hook)
        sender = queue(hook)
        (event,) = found(synthetic=True)
        sender.add(event)
        until(lambda: not sender.left())
    (mail,) = server.got
    assert mail.secure
    assert server.logins == [["lab", "geheim"]]
    assert len(mail.to) == 2
    assert "Subject: [synthetic] fire near 40.50 N, 10.50 E" in mail.text
    assert "Synthetic data, no real event." in mail.text
    assert "CO: 12.5" in mail.text
    assert f"Message-ID: <{event['id']}@example.org>" in mail.text


def test_a_mail_is_not_sent_in_the_clear_or_to_a_stranger(tmp_path, certificate):
    (event,) = found()
    with mailbox() as (port, server):
        with pytest.raises(Exception, match="STARTTLS extension not supported"):
            email(tmp_path, port).send(event)
        assert not server.got
        email(tmp_path, port, "  security: none\n").send(event)  # to this host one may
        assert len(server.got) == 1
    with mailbox(certificate[1]) as (port, server):
        with pytest.raises(ssl.SSLCertVerificationError):
            email(tmp_path, port).send(event)
        assert not server.got


def test_nothing_that_a_chain_found_becomes_a_header(tmp_path):
    evil = "fire\r\nBcc: thief@example.org\r\n\r\nhello"
    with mailbox() as (port, server):
        hook = email(tmp_path, port, "  security: none\n")
        (event,) = found(kind=evil, note=evil)
        hook.send(event)
        with pytest.raises(ValueError, match="linefeed"):
            hook.send({**event, "kind": evil})
    (mail,) = server.got
    head = mail.text.partition("\r\n\r\n")[0]
    assert "\r\nBcc" not in head
    assert "thief" not in "".join(mail.to)


# The file -------------------------------------------------------------------------------------------------------------

GOOD = "webhook:\n  url: https://example.org/in\n  secret: {environment: HOOK_SECRET}\n"
MAIL = "email: {host: h, from: a@b.c, to: [d@e.f]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must say which hooks"),
        ("a: [", "not valid YAML"),
        ("webhok: {}", "Did you mean 'webhook'"),
        ("webhook: yes", "must hold keys and values"),
        ("webhook: {url: https://example.org, secret: hunter2}", "has its secret in the file itself"),
        (MAIL + ", user: u, password: 12345}", "has its password in the file itself"),
        (GOOD + "  token: abc\n", "looks like a secret"),
        ("webhook: {url: 'https://u:p@example.org/', secret: {environment: HOOK_SECRET}}", "has a secret in its url"),
        (
            "webhook: {url: 'https://example.org/?token=abc', secret: {environment: HOOK_SECRET}}",
            "has a secret in its url",
        ),
        ("webhook: {url: 'http://example.org/', secret: {environment: HOOK_SECRET}}", "must begin with https://"),
        ("webhook: {url: 'ftp://127.0.0.1/', secret: {environment: HOOK_SECRET}}", "must begin with https://"),
        (
            "webhook: {url: 'https://example.org/', secret: {environment: NOT_THERE}}",
            "variable NOT_THERE, which is not there",
        ),
        (
            "webhook: {url: 'https://example.org/', secret: {credential: none}}",
            "CREDENTIALS_DIRECTORY, which is not there",
        ),
        ("webhook: {url: 'https://example.org/', secret: {credential: ../x}}", "no plain name"),
        ("webhook: {url: 'https://example.org/'}", "needs 'secret'"),
        (GOOD + "  colour: red\n", "unknown key 'colour'"),
        ("cap: {folder: /x, sender: nobody}", "no address"),
        ("cap: {sender: a@b.c}", "needs 'folder'"),
        (MAIL + ", security: none}", "would send to h in the clear"),
        (MAIL + ", security: ssl}", "has the security 'ssl'"),
        (MAIL + ", port: 99999}", "a number from 1 to 65535"),
        (MAIL + ", user: u}", "needs 'password'"),
        ("email: {host: h, from: a@b.c, to: []}", "a list of addresses"),
        ("email: {host: h, from: a@b.c, to: ['d@e.f\\nBcc: x@y.z']}", "no address"),
        ('email: {host: "h\\nx", from: a@b.c, to: [d@e.f]}', "a text of one line"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_and_no_secret_with_it(tmp_path, monkeypatch, text, words):
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ParameterError, match=r"hooks\.yaml") as said:
        loaded(tmp_path, text)
    assert words in str(said.value)
    for secret in ("hunter2", "12345", "abc", "u:p", "s3cret"):
        assert secret not in str(said.value)


def test_an_address_may_be_a_secret_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_URL", "https://example.org/in/abc?token=x")
    monkeypatch.setenv("HOOK_SECRET", "s")
    text = "webhook: {url: {environment: HOOK_URL}, secret: {environment: HOOK_SECRET}}"
    hook = loaded(tmp_path, text)["webhook"]
    assert hook.url.endswith("token=x")
    assert "abc" not in repr(hook)
    monkeypatch.setenv("HOOK_URL", "http://example.org/in/abc")
    with pytest.raises(ParameterError, match="at the place that is named") as said:
        loaded(tmp_path, text)
    assert "abc" not in str(said.value)


def test_a_file_of_cap_appears_whole_for_others_to_read(queue, tmp_path):
    sender = queue(hooks.Cap(tmp_path / "alerts", "a@b.c"))
    (event,) = found(quality=np.nan)
    sender.add(event)
    until(lambda: not sender.left())
    (path,) = (tmp_path / "alerts").iterdir()
    assert path.name == f"{event['id']}.xml"
    assert path.stat().st_mode & 0o444 == 0o444 & ~_umask()
    assert b"<status>Actual</status>" in path.read_bytes()


def _umask():
    os.umask(before := os.umask(0))
    return before
