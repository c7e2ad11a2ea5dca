"""Names that Envoy's configuration and the policy server share."""

FILTER = "xds.ext_proc"
"""The one filter of all processors. A route's chain says which of them run."""
CHAIN = "x-xds-chain"
"""The metadata of a stream that holds the chain of its route."""
