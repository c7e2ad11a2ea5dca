"""The control loop: compiles the gateway, proves it, rolls it out, and follows the state of the fleet."""
