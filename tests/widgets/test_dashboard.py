"""The served dashboard in a real browser: nothing is asked of another host, and a run ends in a map."""

from __future__ import annotations

import json
import subprocess
import sys
from urllib.parse import quote, urlsplit

import pytest
from widget_servers import PIXEL, colours, free_port, started, stopped

from phidias_lab.widgets import proxy, serve

ORDER = {
    "chain": "ocean.gridding",
    "parameters": {
        "region": [-15, 44, -5, 50],
        "depths": [0, 10],
        "length": 150000,
        "period": ["2010-01-01", "2010-12-31"],
    },
}
LONG = {"chain": "ocean.gridding", "parameters": {"windows": "monthly"}}
HAS_IMAGE = "Bokeh.documents.some(d => [...d._all_models.values()].some(m => m.type == 'Image'))"

HAS_TITLE = """text => Bokeh.documents.some(d => [...d._all_models.values()].some(
  m => m.type == 'Title' && m.text.replaceAll('\\n', ' ').includes(text)))"""


def hosts(page) -> set:
    return {urlsplit(url).hostname for url in page.asked if not url.startswith(("data:", "blob:", "about:"))}


def opened(page, dashboard, order=None):
    asked = f"order={quote(json.dumps(order))}" if order else "chain=ocean.gridding"
    page.goto(f"{dashboard}/?{asked}")
    page.get_by_role("button", name="Run", exact=True).wait_for()
    page.wait_for_function("Bokeh.documents.length > 0 && Bokeh.documents.every(d => d.is_idle)")


def test_a_run_is_started_and_its_map_appears_without_another_host(page, dashboard, keep):
    opened(page, dashboard, ORDER)
    assert page.get_by_label("Region west [°]", exact=True).input_value() == "-15"
    before = keep("workbench-before-the-run")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("done.").wait_for(timeout=60_000)
    page.wait_for_function(HAS_IMAGE)
    figure = page.locator(".bk-Figure").first
    figure.wait_for()
    page.wait_for_timeout(1000)  # the canvas is painted in an animation frame after the document has the image
    figure = figure.bounding_box()
    after = keep("workbench-with-a-map")
    assert colours(after, figure) > colours(before, figure) + 50
    assert page.get_by_text("Observations used ").first.is_visible()  # what the run said of its input
    page.get_by_label("Observations used", exact=True).check()
    page.get_by_text("observations used here, at").wait_for()
    page.wait_for_function("Bokeh.documents.every(d => d.is_idle)")
    page.wait_for_timeout(1000)
    assert keep("workbench-with-the-places-of-its-observations") != after
    for title in ("Section", "Profile"):
        page.get_by_text(title, exact=True).click()
        page.wait_for_timeout(1200)
        keep(f"workbench-{title.lower()}")
    assert hosts(page) == {"127.0.0.1"}
    assert page.errors == []


def test_a_click_on_the_map_chooses_a_place_tells_what_weighs_there_and_draws_the_line_of_the_section(
    page, dashboard, keep
):
    opened(page, dashboard, ORDER)
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function(HAS_IMAGE, timeout=60_000)
    place = page.get_by_label("Place (longitude latitude)", exact=True)
    place.wait_for()
    page.locator(".bk-Figure").first.scroll_into_view_if_needed()
    settled(page)
    page.mouse.click(*page.evaluate(PIXEL, [-10.5, 46.5]))
    settled(page)
    lon, lat = (float(number) for number in place.input_value().split())
    assert (lon, lat) == pytest.approx((-10.5, 46.5), abs=0.05)  # a pixel or two
    page.get_by_role("button", name="What weighs here").click()
    page.get_by_text("The analysis here is").wait_for()
    page.get_by_text("contribution [°C]").wait_for()
    assert page.locator(".tabulator-row").count() == 10
    settled(page)
    keep("workbench-with-what-weighs-at-a-place")
    # With the keyboard alone: another place, for which the weights are asked for anew.
    place.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("-8 48")
    page.keyboard.press("Enter")
    page.get_by_text("The analysis here is").wait_for(state="hidden")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("The analysis here is").wait_for()

    page.get_by_label("A click on the map").select_option("adds to the line")
    settled(page)
    page.locator(".bk-Figure").first.scroll_into_view_if_needed()
    written = page.get_by_label("Line of the section")
    for number, vertex in enumerate(([-14.5, 44.5], [-11, 48], [-6, 49]), 1):
        page.mouse.click(*page.evaluate(PIXEL, vertex))
        for _ in range(30):
            settled(page)
            if len(written.input_value().split(";")) == number:
                break
    line = written.input_value()
    assert len(line.split(";")) == 3
    hide = page.get_by_label("Hide where the error variance is above")
    hide.select_option("0.3 of the background's")
    page.mouse.move(10, 10)
    page.wait_for_function(HAS_TITLE, arg="error variance above 0.3")
    settled(page)
    keep("workbench-with-a-line-and-what-is-uncertain-hidden")
    page.get_by_text("Section", exact=True).click()
    page.wait_for_function(HAS_TITLE, arg="from 44.5°N 14.5°W to 49°N 6°W")
    settled(page)
    assert page.get_by_label("Line (longitude latitude; ...)").input_value() == line
    keep("workbench-section-along-the-line")
    page.get_by_text("Profile", exact=True).click()
    page.wait_for_function(HAS_TITLE, arg="at 48°N 8°W")
    settled(page)
    keep("workbench-profile-at-the-place")
    assert hosts(page) == {"127.0.0.1"}
    assert page.errors == []


def settled(page) -> None:
    """Wait until the page has shown what it was told."""
    page.wait_for_timeout(700)
    page.wait_for_function("Bokeh.documents.every(d => d.is_idle)")
    page.wait_for_timeout(700)


def test_while_the_dashboards_are_being_loaded_the_page_says_so_and_then_shows_them(
    page, served_environment, tmp_path, keep
):
    port = free_port()
    command = [sys.executable, "-m", "phidias_lab.widgets.serve", "--port", str(port)]
    server = started(command, port, served_environment, tmp_path / "serve.log")
    try:
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_text("The dashboards are being loaded").wait_for()
        keep("dashboard-while-it-loads")
        page.get_by_role("button", name="Run", exact=True).wait_for(timeout=90_000)
        assert hosts(page) == {"127.0.0.1"}
    finally:
        stopped(server)


def test_a_value_outside_its_bounds_is_told_and_cannot_run(page, dashboard, keep):
    opened(page, dashboard)
    length = page.get_by_label("Length [m]", exact=True)
    length.fill("5")
    length.press("Enter")
    page.get_by_text("Parameter 'length' was given 5").first.wait_for()
    page.get_by_role("button", name="Run", exact=True, disabled=True).wait_for()
    keep("workbench-with-a-wrong-value")
    length.fill("50000")
    length.press("Enter")
    page.get_by_text("Parameter 'length'").first.wait_for(state="hidden")
    page.get_by_role("button", name="Run", exact=True, disabled=False).wait_for()


def test_a_run_can_be_cancelled_from_the_page(page, dashboard, keep):
    opened(page, dashboard, LONG)
    page.get_by_role("button", name="Run", exact=True).click()
    cancel = page.get_by_role("button", name="Cancel")
    page.get_by_text("running").first.wait_for()
    keep("workbench-while-it-runs")
    cancel.click()
    page.get_by_text(": cancelled.").wait_for()
    page.get_by_role("button", name="Run", exact=True, disabled=False).wait_for()


def test_the_catalogue_and_the_runs_can_be_browsed(page, dashboard, keep):
    opened(page, dashboard)
    page.get_by_text("Catalogue", exact=True).click()
    page.get_by_label("Find").fill("baltic grid")
    page.get_by_role("heading", name="ocean.baltic", exact=True).wait_for()
    page.get_by_role("button", name="Quick look").click()
    page.wait_for_function(HAS_IMAGE)
    page.wait_for_timeout(1000)
    keep("catalogue")
    page.get_by_text("Runs", exact=True).click()
    page.get_by_role("button", name="Open in the workbench").wait_for()
    keep("runs")
    assert hosts(page) == {"127.0.0.1"}
    assert page.errors == []


def test_every_control_has_a_name_for_screen_readers(page, dashboard):
    opened(page, dashboard)
    page.get_by_label("Show expert parameters").click()
    page.get_by_label("Solver").wait_for()
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {"checkbox", "textbox", "combobox", "slider", "button", "spinbutton", "listbox", "link"}
    controls = [n for n in tree if n.get("role", {}).get("value") in roles and not n.get("ignored")]
    nameless = [n["role"]["value"] for n in controls if not n.get("name", {}).get("value")]
    assert len(controls) > 20
    assert nameless == []


def test_the_dashboard_opens_through_jupyter_at_its_own_path(page, served_environment, tmp_path):
    port = free_port()
    config = {
        "ServerProxy": {"servers": {proxy.NAME: proxy.setup()}},
        "IdentityProvider": {"token": "secret"},
        "ServerApp": {
            "base_url": "/user/me/",
            "open_browser": False,
            "root_dir": str(tmp_path),
            "port": port,
            "port_retries": 0,
        },
    }
    (tmp_path / "jupyter_server_config.json").write_text(json.dumps(config))
    environment = {**served_environment, "JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "jupyter_server", "--allow-root", "--ip=127.0.0.1"]
    server = started(command, port, environment, tmp_path / "jupyter.log")
    try:
        page.goto(f"http://127.0.0.1:{port}/user/me/{proxy.NAME}/?token=secret", timeout=60_000)
        page.get_by_role("button", name="Run", exact=True).wait_for(timeout=60_000)
        page.get_by_text("of memory").wait_for()  # words that come through the websocket only
        assert hosts(page) == {"127.0.0.1"}
        assert all(f":{port}/user/me/" in url for url in page.asked if url.startswith(("http", "ws")))
    finally:
        stopped(server)


@pytest.mark.parametrize(("origin", "status"), [("http://evil.example", 403), (None, 101)])
def test_only_pages_of_this_server_can_talk_to_it(dashboard, origin, status):
    from http.client import HTTPConnection

    address = urlsplit(dashboard)
    connection = HTTPConnection(address.hostname, address.port, timeout=10)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "c2l4dGVlbiBieXRlcyBvZg==",
        "Sec-WebSocket-Protocol": f"bokeh, {session_token()}",
        "Origin": origin or dashboard,
    }
    connection.request("GET", "/ws", headers=headers)
    assert connection.getresponse().status == status
    connection.close()


def session_token() -> str:
    from bokeh.util.token import generate_jwt_token, generate_session_id

    return generate_jwt_token(generate_session_id())


def test_the_server_listens_on_this_machine_only():
    server = serve.serve(free_port(), start=False)
    try:
        addresses = {s.getsockname()[0] for s in server._http._sockets.values()}
        assert addresses == {"127.0.0.1"}
    finally:
        server.stop()


def test_what_jupyter_starts_is_not_open_to_other_users():
    told = proxy.setup()
    assert "{unix_socket}" in told["command"]
    assert not any("{port}" in word for word in told["command"])
    assert told["launcher_entry"]["title"] == "phidias dashboards"


def test_telling_jupyter_of_the_dashboards_imports_nothing_heavy():
    code = (
        "import sys; from phidias_lab.widgets import proxy; proxy.setup(); print({'panel', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
