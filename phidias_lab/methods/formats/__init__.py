"""File formats of observations: their names, flags and layout, once for readers, writers and scenes.

Nothing here opens a file: text lines or raw variables go in, plain arrays and dictionaries come out, and the other way.
"""
