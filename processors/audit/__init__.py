"""Compare what producers sent, what was processed and what is stored, event by event."""
