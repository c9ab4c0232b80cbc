"""What the HTTP services share: keys and tokens, limits, problem details, trace contexts."""
