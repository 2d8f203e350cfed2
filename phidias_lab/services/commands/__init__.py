"""One module per command of `phidias`; each holds `command` and imports what is heavy only when it runs."""
