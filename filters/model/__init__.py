"""Declarations of users to which several policies refer: consumers, plans, providers, limits."""
