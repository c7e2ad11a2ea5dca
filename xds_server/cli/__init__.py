"""The command `xds`: one module for each subcommand; they parse and print."""
