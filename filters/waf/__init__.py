"""waf: the OWASP Core Rule Set inspects requests, in processes of their own beside the policy server."""
