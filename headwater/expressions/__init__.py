"""SQL expressions over the columns of events: conditions and computed columns, checked where they are defined. Pure.

`parsing` needs no Arrow, since definitions of aggregates load without it; `compiling` makes functions of tables.
"""
