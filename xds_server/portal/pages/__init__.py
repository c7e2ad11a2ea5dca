"""The pages of the portal. They are made on the server, and work without a script but for trying calls."""
