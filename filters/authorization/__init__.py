"""Who may call: scopes, claims, consumers, plans, methods and conditions."""
