"""ext_authz: a policy in Python, or a service of your own, decides whether a request passes.

This is what policies import: ``from filters.ext_authz import Request, Decision, allow, deny``.
"""

from filters.ext_authz.decisions import Decision, GrpcCall, Peer, Request, allow, deny
from filters.model.headers import Headers

__all__ = ["Decision", "GrpcCall", "Headers", "Peer", "Request", "allow", "deny"]
