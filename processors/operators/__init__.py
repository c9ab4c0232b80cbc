"""Transform tables of events, one step each: decode, identify, enrich, aggregate.

Everything here is pure: no I/O, no clock, no ledger. The engine decides in which order the steps run.
"""
