"""Show an operator what flows, how hot the shards are, what is amiss and what can be done about it, on one page.

`collector` reads, `controls` acts, `state` is what all open pages share, `overview` computes what is shown (pure), the
panels (`flow`, `shards`, `audit`, …) show it, and `gate` and `origins` decide who may see it. Nothing here reads
the stream's events or writes to the lake.
"""
