"""The hub of phidias_lab: what JupyterHub needs to serve a laptop, one machine or a centre. Imports nothing of phidias_lab."""
