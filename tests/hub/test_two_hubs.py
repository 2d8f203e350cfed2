"""Two hubs of one person on one machine, as two `make lab` at different ports, in one browser."""

from __future__ import annotations

import psutil
from phidias_hub import local
from running_hub import Visitor, free_ports

NAME = local.person()


def test_who_logs_in_and_out_at_one_hub_stays_logged_in_at_the_other(laptop, start_hub):
    site, address, variables = laptop
    first = start_hub(site, address, **variables)
    places = free_ports(3)
    names = ("PHIDIAS_HUB_PORT", "PHIDIAS_HUB_INTERNAL_PORT", "PHIDIAS_HUB_PROXY_API_PORT")
    own = [p for p in first.children() if "configurable-http-proxy" in " ".join(p.cmdline())]
    others = dict(zip(names, map(str, places), strict=True))
    second = start_hub(site, f"http://127.0.0.1:{places[0]}/{places[0]}", **others)
    # The one's proxy is no left-over of the other's, though both hubs were started in the same folder.
    assert own[0].is_running()
    assert own[0].status() != psutil.STATUS_ZOMBIE
    one, other = first.visitor(), second.visitor()
    other.cookies = one.cookies  # one browser
    one.log_in(NAME, first.password())
    assert one.start_server().status_code == 200

    def at_work(visitor: Visitor) -> tuple[int, int]:
        """What the hub's page answers, and the server when a kernel is asked for as JupyterLab does."""
        mine = f"/user/{NAME}/"
        kernel = visitor.post(
            f"{visitor.address}{mine}api/kernels", json={}, headers={"X-XSRFToken": visitor.xsrf(mine)}, timeout=60
        )
        return visitor.look("/hub/home", allow_redirects=False).status_code, kernel.status_code

    assert at_work(one) == (200, 201)
    other.log_in(NAME, second.password())
    assert other.start_server().status_code == 200
    assert at_work(other) == (200, 201)
    assert at_work(one) == (200, 201)
    other.look("/hub/logout")
    assert other.look("/hub/home", allow_redirects=False).status_code == 302
    assert at_work(one) == (200, 201)


def test_a_second_hub_of_the_same_site_is_refused_and_the_first_one_goes_on(laptop, start_hub, refused_hub, tmp_path):
    site, address, variables = laptop
    first = start_hub(site, address, **variables)
    family = {child.pid for child in first.children()}
    for words in ((), ("upgrade-db",)):
        second = refused_hub(site, *words, XDG_STATE_HOME=str(tmp_path / "state"), **variables)
        assert second.returncode == 1
        assert f"runs already, as process {first.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
    assert {child.pid for child in first.children()} == family
    assert first.visitor().look("/hub/login").status_code == 200
    # It is the process that counts, not what it leaves behind.
    first.kill()
    first.start()
