"""Names that Envoy's configuration and the policy server share."""

FILTER = "xds.ext_proc"
"""The one filter of all processors. A route's chain says which of them run."""
NOTES = "xds.waf"
"""The namespace of the dynamic metadata that processors write for the access log."""
CHAIN = "x-xds-chain"
"""The metadata of a stream that holds the chain of its route."""
