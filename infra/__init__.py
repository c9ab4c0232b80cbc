"""Declare the infrastructure as code. Nothing of the pipeline imports it."""
