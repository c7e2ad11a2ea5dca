"""Billing: what calls cost, statements of months that add up with the usage, and exports to systems of others."""
