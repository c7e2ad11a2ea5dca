"""The policies, in the order in which they run."""

from typing import Any

from filters.api_key import ApiKey
from filters.authentication import Authentication
from filters.authorize import Authorize
from filters.basic_auth import BasicAuth
from filters.compression import Compression
from filters.cors import Cors
from filters.csrf import Csrf
from filters.ext_authz.policy import ExtAuthz
from filters.fault import Fault
from filters.grpc_web import GrpcWeb
from filters.headers import RequestHeaders, ResponseHeaders
from filters.ip_access import IpAccess
from filters.jwt import Jwt
from filters.mtls import Mtls
from filters.oidc import Oidc
from filters.policy import Policy
from filters.rate_limit.policy import Concurrent, LimitHeaders, PlanLimits, QuotaLimit, RateLimit
from filters.rate_limit.usage import Usage
from filters.request_id import RequestId
from filters.validate import Validate

POLICIES: tuple[Policy[Any], ...] = (
    Compression(),
    Cors(),
    Validate(),
    IpAccess(),
    Csrf(),
    Authentication(),
    Oidc(),
    Mtls(),
    Jwt(),
    ApiKey(),
    BasicAuth(),
    Authorize(),
    ExtAuthz(),
    Usage(),
    RateLimit(),
    QuotaLimit(),
    Concurrent(),
    PlanLimits(),
    LimitHeaders(),
    GrpcWeb(),
    RequestHeaders(),
    Fault(),
    RequestId(),
    ResponseHeaders(),
)
"""Position is order: in the filter chain, in `xds explain` and in the reference.

Filters see responses in the reverse order: compression stands first, because it works on what leaves.
"""
