"""Authorization by scopes, claims, consumers, plans, methods and conditions."""
