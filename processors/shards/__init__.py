"""Shards: see their heat, plan a layout in money, apply it step by step, scale by a policy, try it all by simulation.

The core is pure values and functions; `edge`, `apply` and `service` are where it meets AWS.
"""
