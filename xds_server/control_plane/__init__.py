"""The control loop: compile the gateway, prove it, roll it out, and follow what the fleet makes of it."""
