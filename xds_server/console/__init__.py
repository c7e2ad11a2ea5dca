"""The console: a read-only page of the gateway for people, served by `xds run`."""
