"""The parts of scripts/compare: which cases there are, how a round is measured, what is written.

`scripts/` must be on the module path: `peers` and `rivals` start and stop the proxies.
"""
