"""The migrations of the marketplace's tables."""
