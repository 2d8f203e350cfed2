"""A third party's package as pip would have laid it down: chains that behave well, and chains that do not."""
