"""Synthetic scenes: seeded, with a known truth. Nothing here is measured, and everything says so."""
