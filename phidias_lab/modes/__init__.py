"""Ways to run a chain other than once: on the flow of files that arrive (`watch`), over many files (`campaign`)."""
