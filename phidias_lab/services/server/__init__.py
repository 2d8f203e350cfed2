"""What phidias_lab adds to a user's Jupyter server: a Jupyter server extension and its page side (labextension/).

It tells the user in JupyterLab before the server ends (`notices`, `watch`, `pages`), and shows Dask's pages of the user's
own clusters (`cluster_pages`); `phidias` is found in notebooks and terminals (`programs`). In a server that a hub has
started it also brings the user's workspace up to date and opens JupyterLab there (`entrance`), and JupyterLab tells what
became of it.
"""

from __future__ import annotations

import logging


def _jupyter_server_extension_points() -> list[dict]:
    return [{"module": "phidias_lab.services.server"}]


def _load_jupyter_server_extension(app) -> None:
    from phidias_lab.compute import site
    from phidias_lab.errors import ParameterError
    from phidias_lab.services.server import cluster_pages, entrance, programs
    from phidias_lab.services.server.notices import ends, note
    from phidias_lab.services.server.pages import handlers
    from phidias_lab.services.server.watch import Watch

    notes = entrance.prepare(app) if entrance.started_by_a_hub() else []
    cluster_pages.offer(app)
    programs.offer(app)
    try:
        servers = site.current()["servers"]
    except ParameterError as error:
        notes.append(note(f"Nothing announces the end of this server. {error}", "warning"))
        servers = {"idle_minutes": 0, "warn_minutes": 0}
    for told in notes:
        app.log.log(logging.WARNING if told["type"] == "warning" else logging.INFO, "%s", told["message"])
    watch = Watch(
        app, idle_minutes=servers["idle_minutes"], warn_minutes=servers["warn_minutes"], ends=ends(), notes=notes
    )
    app.web_app.add_handlers(".*", handlers(app.web_app.settings["base_url"], watch))
    watch.start()
