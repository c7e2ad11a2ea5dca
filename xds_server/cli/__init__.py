"""The command `xds`, with one module for each subcommand. They parse arguments and print."""
