"""Real processes on emulators, killed, stopped and cut off while they work: `make chaos`."""
