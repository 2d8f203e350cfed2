"""Dashboards that are served: the workbench, the catalogue, the runs."""
