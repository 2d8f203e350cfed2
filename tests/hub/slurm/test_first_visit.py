"""From the log-in page to JupyterLab, in a real browser."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("no_servers")


def log_in(page, hub, name: str) -> None:
    page.goto(hub.address)
    page.fill("#username_input", name)
    page.fill("#password_input", hub.password)
    page.click("#login_submit")


def test_a_user_logs_in_chooses_a_gpu_and_lands_in_jupyterlab(page, keep, hub, as_user):
    page.set_default_timeout(60_000)
    log_in(page, hub, "alice")
    page.wait_for_url("**/hub/spawn*")
    page.check("input[name=profile][value=gpu]")
    keep("hub-choice")
    page.click("#spawn_form input[type=submit], #spawn_form button[type=submit]")
    page.wait_for_url("**/hub/spawn-pending/**")
    page.wait_for_selector("#progress-message:not(:empty)")
    keep("hub-waiting")
    page.wait_for_selector(".jp-Launcher, .jp-NotebookPanel")
    keep("hub-jupyterlab")
    (job,) = as_user("root", "squeue", "-h", "-o", "%u %P %b %T").stdout.splitlines()
    assert job == "alice gpu gres:gpu:1 RUNNING"


def test_two_users_have_servers_at_once_under_their_own_accounts(chromium, hub, as_user):
    contexts = {name: chromium.new_context() for name in ("alice", "bob")}
    pages = {}
    for name, context in contexts.items():
        pages[name] = page = context.new_page()
        page.set_default_timeout(60_000)
        log_in(page, hub, name)
        page.wait_for_url("**/hub/spawn*")
        page.click("#spawn_form input[type=submit], #spawn_form button[type=submit]")
    for page in pages.values():
        page.wait_for_selector(".jp-Launcher, .jp-NotebookPanel")
    running = as_user("root", "squeue", "-h", "-o", "%u %T").stdout.splitlines()
    assert sorted(running) == ["alice RUNNING", "bob RUNNING"]
    answer = pages["bob"].goto(f"{hub.address}/user/alice/lab")
    assert answer.status in (403, 404)
    for context in contexts.values():
        context.close()
