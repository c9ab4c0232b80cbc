"""Read a stream, compute what a pipeline defines, write it exactly once, and check, rebuild and scale what runs."""
