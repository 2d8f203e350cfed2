"""The hub of the lab: JupyterHub set up from one site file. Nothing here imports phidias_lab."""
