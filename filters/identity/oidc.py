"""oidc: users log in with a browser (OpenID Connect), by Envoy's oauth2 filter. The session is in cookies.

The oauth2 filter handles state, PKCE, refresh and logout. The identity token identifies the user. A separate jwt_authn
filter after the oauth2 filter verifies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from envoy.config.core.v3 import config_source_pb2, http_uri_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as jwt_pb2
from envoy.extensions.filters.http.oauth2.v3 import oauth_pb2 as pb
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.type.matcher.v3 import path_pb2, regex_pb2, string_pb2
from google.protobuf import duration_pb2, wrappers_pb2

from filters.identity.jwt import JwtSettings, jwt_provider, requirement
from filters.identity.oauth2_per_route import OAuth2PerRoute
from filters.identity.script import other_headers
from filters.identity.script_rules import OidcRule
from filters.language import Mistake, Shorthand, option
from filters.model.identity import OidcClient, Provider
from filters.model.methods import failure
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage, cluster_of_url
from filters.reasons import Reason, details_begin

FILTER = "envoy.filters.http.oauth2"
TOKEN_FILTER = "xds.oidc.token"  # noqa: S105 - a filter's name
_OTHERS = details_begin("jwt_authn", "lua_response", "ext_authz", "direct_response")
"""Details of 401 responses of other filters. The oauth2 filter has many texts, so all other details are its own."""
CHALLENGE = 'Bearer realm="gateway"'
_KINDS = (
    "bearer_token",
    "oauth_hmac",
    "oauth_expires",
    "id_token",
    "refresh_token",
    "oauth_nonce",
    "code_verifier",
)
AGAIN = "again"
"""The kind of the cookie that records how the script has tried to renew a session."""
_LAX = pb.CookieConfig(same_site=pb.CookieConfig.LAX, path="/")


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """The issuer at which users log in."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a provider")
    provider: str = option("The provider, which needs `oidc`.", refers="identity")

    @classmethod
    def short(cls, value: str) -> OidcSettings:
        """The settings that a provider's name stands for."""
        return cls(provider=value)

    @property
    def optional(self) -> bool:
        """Always False, because a request without a session is sent to the login."""
        return False

    def rule(self) -> OidcRule:
        """The part of the route's rule for the identity script."""
        return {
            "provider": self.provider,
            "key": token_key(self.provider),
            "cookies": [cookie(kind, self.provider) for kind in (*_KINDS, AGAIN)],
            "refresh": cookie("refresh_token", self.provider),
            "again": cookie(AGAIN, self.provider),
        }

    def challenge(self) -> str:
        """The WWW-Authenticate challenge, for programs that cannot log in."""
        return CHALLENGE


def cookie(kind: str, provider: str) -> str:
    """A cookie's name. Each provider has its own cookies, so sessions do not overwrite each other."""
    return f"_oidc_{kind}_{provider}"


def token_key(provider: str) -> str:
    """The key of the verified identity token in the metadata of jwt_authn. It cannot be a provider's name."""
    return f"{provider}/oidc"


def client_secret_name(provider: str) -> str:
    """The name of the SDS secret of the client at the issuer."""
    return f"identity/{provider}/client-secret"


def session_secret_name(provider: str) -> str:
    """The name of the SDS secret of the session's cookies."""
    return f"identity/{provider}/session-secret"


def _secret(name: str) -> secret_pb2.SdsSecretConfig:
    source = config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )
    return secret_pb2.SdsSecretConfig(name=name, sds_config=source)


def own_paths(name: str, client: OidcClient) -> tuple[str, str]:
    """The callback path, and the logout path."""
    return client.callback_path or f"/_oidc/{name}/callback", client.logout_path or f"/_oidc/{name}/logout"


def _path(path: str) -> path_pb2.PathMatcher:
    return path_pb2.PathMatcher(path=string_pb2.StringMatcher(exact=path))


def _header(name: str, regex: str) -> route_components_pb2.HeaderMatcher:
    string = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex))
    return route_components_pb2.HeaderMatcher(name=name, string_match=string)


def oauth2_config(name: str, client: OidcClient, context: Context) -> pb.OAuth2Config:
    """The oauth2 configuration of one route."""
    callback, logout = own_paths(name, client)
    timeout = duration_pb2.Duration(seconds=5)
    config = pb.OAuth2Config(
        token_endpoint=http_uri_pb2.HttpUri(
            uri=client.token_endpoint, cluster=cluster_of_url(client.token_endpoint), timeout=timeout
        ),
        authorization_endpoint=client.authorization_endpoint,
        redirect_uri=f"%REQ(x-forwarded-proto)%://%REQ(:authority)%{callback}",
        redirect_path_matcher=_path(callback),
        signout_path=_path(logout),
        forward_bearer_token=client.forward_access_token,
        auth_scopes=client.scopes,
        auth_type=pb.OAuth2Config.BASIC_AUTH
        if client.client_authentication == "basic"
        else pb.OAuth2Config.URL_ENCODED_BODY,
        use_refresh_token=wrappers_pb2.BoolValue(value=client.refresh),
        # A program that does not accept a login page gets 401 instead.
        deny_redirect_matcher=[
            _header("x-requested-with", "(?i)xmlhttprequest"),
            _header("sec-fetch-mode", "cors|same-origin|websocket"),
        ],
        pass_through_matcher=[_header(one, ".+") for one in sorted(set(other_headers(context)))],
        stat_prefix="oidc",
    )
    if client.end_session_endpoint is not None:
        config.end_session_endpoint = client.end_session_endpoint
    credentials = config.credentials
    credentials.client_id = client.client_id
    credentials.token_secret.CopyFrom(_secret(client_secret_name(name)))
    credentials.hmac_secret.CopyFrom(_secret(session_secret_name(name)))
    credentials.cookie_domain = client.cookie_domain or ""
    for kind in _KINDS:
        setattr(credentials.cookie_names, kind, cookie(kind, name))
        getattr(config.cookie_configs, f"{kind}_cookie_config").CopyFrom(_LAX)
    return config


def _clients(context: Context) -> dict[str, tuple[Provider, OidcClient]]:
    return {name: (one, one.oidc) for name, one in context.providers.items() if one.oidc is not None}


def _token_filter(context: Context) -> HttpFilter:
    """The filter that verifies identity tokens: the signature, the issuer, and the client as the audience."""
    config = jwt_pb2.JwtAuthentication(stat_prefix="oidc")
    for name, (provider, client) in _clients(context).items():
        key, place = token_key(name), (cookie("id_token", name),)
        token = replace(
            provider,
            audiences=(client.client_id,),
            from_headers=(),
            from_query=(),
            from_cookies=place,
            forward=True,
        )
        config.providers[key].CopyFrom(jwt_provider(key, token, context.contents))
        config.requirement_map[key].CopyFrom(requirement(JwtSettings(provider=key), judge=False))
    return HttpFilter(name=TOKEN_FILTER, config=config, dynamic=True)


class Oidc(Policy[OidcSettings]):
    """Compiled into Envoy's oauth2 filter, a jwt_authn filter and the identity script."""

    key = "oidc"
    stage = Stage.AUTHENTICATE
    settings = OidcSettings
    enforced_by = "Envoy (oauth2, jwt_authn; generated Lua: claim to consumer)"
    since: ClassVar[Mapping[str, tuple[int, int]]] = {FILTER: (1, 38)}
    reasons = (
        failure("oidc_missing", "A login is required"),
        failure("oidc_expired", "The login has expired"),
        Reason(
            name="oidc_failed",
            title="The login failed, or a login is required",
            status=401,
            when=f"response.code == 401 && !({_OTHERS})",  # the oauth2 filter has no fixed details
            challenge=CHALLENGE,
        ),
    )

    def check(self, settings: OidcSettings, context: Context) -> Iterator[Mistake]:
        """Yield mistakes of the provider that matter only for logins."""
        provider = context.providers.get(settings.provider)
        if provider is not None and provider.oidc is None:
            yield Mistake(f"the provider '{settings.provider}' has no 'oidc'", "add it under identity")
        elif provider is not None and provider.oidc is not None:
            content = context.contents.get(provider.oidc.session_secret)
            if content is not None and len(content.strip()) < 32:
                remedy = "make one with: openssl rand -hex 32"
                yield Mistake("the session secret is shorter than 32 bytes", remedy)

    def secrets(self, context: Context) -> Iterator[tuple[str, bytes]]:
        for name, (_, client) in _clients(context).items():
            yield client_secret_name(name), context.contents[client.client_secret]
            yield session_secret_name(name), context.contents[client.session_secret]

    def http_filters(self, used: Iterable[OidcSettings], context: Context) -> tuple[HttpFilter, ...]:
        urls = sorted({client.token_endpoint for _, client in _clients(context).values()})
        login = HttpFilter(name=FILTER, config=pb.OAuth2(), calls=tuple(urls))
        return (login, _token_filter(context))

    def on_route(self, settings: OidcSettings, context: Context) -> RoutePart:
        client = context.providers[settings.provider].oidc
        assert client is not None, "checked when the gateway was read"
        login = OAuth2PerRoute(config=oauth2_config(settings.provider, client, context))
        token = jwt_pb2.PerRouteConfig(requirement_name=token_key(settings.provider))
        return RoutePart(
            filter_configs={FILTER: login, TOKEN_FILTER: token},
            own_paths=own_paths(settings.provider, client),
        )
