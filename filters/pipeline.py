"""The policies, in the order in which they run."""

from typing import Any

from filters.access_log import AccessLog
from filters.authorization.authorize import Authorize
from filters.browser_challenge.policy import BrowserChallenge
from filters.cache.policy import Cache
from filters.compression import Compression
from filters.cors import Cors
from filters.csrf import Csrf
from filters.decompression.policy import Decompression
from filters.ext_authz.policy import ExtAuthz
from filters.ext_proc.policy import ExtProc
from filters.fault import Fault
from filters.grpc_bridges import GrpcBridge, GrpcReverseBridge
from filters.grpc_transcoding.policy import GrpcTranscoding
from filters.grpc_transcoding.reverse import GrpcReverseTranscoding
from filters.grpc_web import GrpcWeb
from filters.headers import RequestHeaders, ResponseHeaders
from filters.identity.api_key import ApiKey
from filters.identity.authentication import Authentication
from filters.identity.basic_auth import BasicAuth
from filters.identity.jwt import Jwt
from filters.identity.mtls import Mtls
from filters.identity.oidc import Oidc
from filters.ip_access import IpAccess
from filters.metering import Metering
from filters.policy import Policy
from filters.rate_limit.policy import Concurrent, LimitHeaders, PlanLimits, QuotaLimit, RateLimit
from filters.rate_limit.usage import Usage
from filters.request_id import RequestId
from filters.tracing import Tracing
from filters.transform.policy import Fields, Transform
from filters.validation.policy import Validate
from filters.waf.policy import Waf

POLICIES: tuple[Policy[Any], ...] = (
    Compression(),
    Cors(),
    Validate(),
    IpAccess(),
    BrowserChallenge(),
    Csrf(),
    Authentication(),
    Oidc(),
    Mtls(),
    Jwt(),
    ApiKey(),
    BasicAuth(),
    Authorize(),
    Decompression(),
    ExtAuthz(),
    Usage(),
    RateLimit(),
    QuotaLimit(),
    Concurrent(),
    PlanLimits(),
    LimitHeaders(),
    Waf(),
    ExtProc(),
    Transform(),
    Fields(),
    GrpcWeb(),
    GrpcTranscoding(),
    GrpcBridge(),
    GrpcReverseTranscoding(),
    GrpcReverseBridge(),
    RequestHeaders(),
    Fault(),
    RequestId(),
    ResponseHeaders(),
    AccessLog(),
    Tracing(),
    Metering(),
    Cache(),
)
"""The position is the order in the filter chain, in `xds explain` and in the reference.

Filters process responses in the reverse order. Compression is first, because it must process responses last.
"""
