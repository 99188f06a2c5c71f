"""The wire formats: pure functions from events to bytes, without socket, clock or web framework."""
