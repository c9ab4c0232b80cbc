"""Show complete pipelines and a subscriber of alerts, to run and to copy from."""
