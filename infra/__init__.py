"""The infrastructure as code. It declares what runs; nothing of the pipeline imports it."""
