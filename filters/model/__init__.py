"""What users declare that several policies refer to: consumers, plans, providers, limits."""
