"""Measure the heat of shards, plan a layout with its price, apply it, scale by a policy, and simulate all of it.

The planning modules are pure values and functions. Only `readings`, `cloudwatch`, `apply` and `service` call AWS.
"""
