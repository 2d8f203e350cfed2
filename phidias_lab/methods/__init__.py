"""Numerics by technique: arrays in, arrays out."""
