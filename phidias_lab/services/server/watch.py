"""When was this server last used, and is it time to stop it."""

from __future__ import annotations

from datetime import UTC, datetime

from phidias_lab.services.server.notices import REPORTS_COUNT_FOR, notices, now

EVERY = 15.0  # seconds between two looks


class Watch:
    """One server's use: what its kernels and terminals did, and what its pages report of their users."""

    def __init__(self, app, *, idle_minutes: float, warn_minutes: float, ends: float | None, notes: list[dict]):
        self.app = app
        self.notes = notes
        self.idle_minutes = idle_minutes
        self.warn_minutes = warn_minutes
        self.ends = ends
        self.touched = now()
        self.reported = 0.0
        self._look = None

    def start(self) -> None:
        """Look from time to time whether nobody has used the server for too long."""
        from tornado.ioloop import PeriodicCallback

        if self.idle_minutes:
            self._look = PeriodicCallback(self.look, EVERY * 1000)
            self._look.start()

    def report(self, idle: float) -> None:
        """A page says how many seconds ago its user last pressed a key or clicked."""
        self.reported = now()
        self.touched = max(self.touched, now() - idle)

    def idle(self) -> float:
        """Seconds since the server was last used."""
        kernels = self.app.kernel_manager
        for kernel_id in kernels.list_kernel_ids():
            if getattr(kernels.get_kernel(kernel_id), "execution_state", None) in ("busy", "starting"):
                return 0.0
        settings = self.app.web_app.settings
        used = [self.touched, _seconds(kernels.last_kernel_activity)]
        for key in ("terminal_last_activity", *(() if self._a_page_reports() else ("api_last_activity",))):
            if key in settings:
                used.append(_seconds(settings[key]))
        return max(0.0, now() - max(used))

    def _a_page_reports(self) -> bool:
        return now() - self.reported < REPORTS_COUNT_FOR

    def told(self) -> list[dict]:
        return self.notes + notices(
            now(),
            ends=self.ends,
            idle=self.idle(),
            idle_minutes=self.idle_minutes,
            warn_minutes=self.warn_minutes,
        )

    def look(self) -> None:
        idle = self.idle()
        if idle >= self.idle_minutes * 60:
            self.app.log.warning("Nobody has used this server for %d minutes: it stops.", idle // 60)
            self._look.stop()
            self.app.stop()


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
