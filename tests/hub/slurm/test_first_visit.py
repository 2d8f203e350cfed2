"""From the log-in page to JupyterLab, in a real browser."""

from __future__ import annotations

import re
import shutil
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from slurm_lab.slurm import until

pytestmark = pytest.mark.usefixtures("no_servers")

CLUSTER_NOTEBOOK = "phidias/ocean/gridding_on_a_cluster.ipynb"
#: What the waiting page says while every node of the partition is somebody else's.
WAITING = re.compile("Your server waits in the queue: .+")
#: From the page to log in to a chain that runs.
CLICKS = 5


class Counted:
    """A page whose clicks are counted."""

    def __init__(self, page):
        self.page, self.clicks = page, 0

    def click(self, selector: str) -> None:
        self.page.click(selector)
        self.clicks += 1


@pytest.fixture
def newcomer(as_user, no_servers):
    """alice without a workspace, settings of JupyterLab and runs, as on her first visit; what was there comes back."""
    home = Path("/home/alice")
    aside = Path(as_user("alice", "mktemp", "-d", "-p", str(home)).stdout.strip())
    folders = ("phidias", ".jupyter", ".local/share/phidias_lab", ".local/share/jupyter")
    moved = [folder for folder in folders if (home / folder).exists()]
    for number, folder in enumerate(moved):
        (home / folder).rename(aside / str(number))
    yield home
    no_servers.slurm.cancel_jobs()
    for folder in folders:
        shutil.rmtree(home / folder, ignore_errors=True)
    for number, folder in enumerate(moved):
        (aside / str(number)).rename(home / folder)
    aside.rmdir()


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


def run_all(page) -> None:
    """By the menu, as with a keyboard; no dialog asks back."""
    for item in ("Run", "Run All Cells"):
        page.get_by_role("menuitem", name=item, exact=True).click()


def test_a_chain_runs_five_clicks_after_the_login_page_and_a_map_appears(page, keep, hub, newcomer):
    page.set_default_timeout(120_000)
    hand = Counted(page)
    page.goto(hub.address)
    page.fill("#username_input", "alice")
    page.fill("#password_input", hub.password)
    hand.click("#login_submit")
    hand.click("input[name=profile][value=gpu]")
    hand.click("#spawn_form input[type=submit], #spawn_form button[type=submit]")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    assert page.url.endswith("/lab/tree/phidias/start_here.ipynb")
    # JupyterLab forgets a request to restart a kernel that is still being connected.
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    hand.click(".jp-NotebookPanel-toolbar [data-command='notebook:restart-run-all']")
    keep("hub-journey-start-here")
    hand.click(".jp-Dialog .jp-mod-accept")
    assert hand.clicks <= CLICKS
    page.locator(".bk-Figure").first.wait_for()
    page.wait_for_timeout(1000)
    keep("hub-journey-first-map")
    (record,) = (newcomer / ".local/share/phidias_lab/runs").glob("*/record.json")
    assert record.owner() == "alice"
    assert page.get_by_text("Would you like to get notified about official Jupyter news").count() == 0


def test_a_notebook_grids_on_two_gpu_workers_and_shows_the_map(page, keep, hub, as_user, newcomer):
    page.set_default_timeout(180_000)
    # Somebody has all the GPU nodes for some seconds.
    as_user("bob", "sbatch", "--partition=gpu", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 15")
    log_in(page, hub, "alice")
    page.check("input[name=profile][value=gpu]")
    page.click("#spawn_form input[type=submit], #spawn_form button[type=submit]")
    page.get_by_text(WAITING).first.wait_for()
    keep("hub-journey-waiting")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    page.goto(f"{hub.address}/user/alice/lab/tree/{CLUSTER_NOTEBOOK}")
    page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first.wait_for()
    # JupyterLab forgets a request to run while the kernel is still being connected.
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()
    run_all(page)

    def workers() -> list[str]:
        listed = as_user("root", "squeue", "-h", "-u", "alice", "-o", "%P %b %T %j").stdout.splitlines()
        return sorted(line.rpartition(" ")[0] for line in listed if not line.endswith(" phidias-server"))

    def both() -> bool:
        return workers() == ["gpu gres:gpu:1 RUNNING"] * 2

    assert until(120, both), workers()
    # The notebook checks its own results and gives the nodes back in its last cells.
    page.get_by_text("largest difference between the two").first.wait_for()
    assert until(180, lambda: workers() == []), workers()
    figure = page.locator(".bk-Figure").first
    figure.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    keep("hub-journey-cluster-map")
    # A map has many colours; an empty frame has few.
    assert len(set(Image.open(BytesIO(figure.screenshot())).convert("RGB").get_flattened_data())) > 100
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0


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
