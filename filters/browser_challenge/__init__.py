"""browser_challenge: a proof of work that only a program with a script engine delivers, checked in Envoy."""
