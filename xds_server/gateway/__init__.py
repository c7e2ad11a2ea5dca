"""The language: YAML to a frozen model, and every problem with its place."""
