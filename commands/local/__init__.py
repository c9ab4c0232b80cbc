"""Run everything on one machine: an embedded AWS on loopback, the demo and `headwater up`."""
