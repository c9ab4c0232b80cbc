"""Share between the HTTP services: keys and tokens, limits, problem details, trace contexts, the server itself.

The gateway and the query API import from here; nothing here knows their routes, events or views.
"""
