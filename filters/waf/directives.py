"""The directives of ModSecurity that configure the Core Rule Set, for all profiles of a gateway together.

All profiles share one set of rules. The unique id of a transaction, which no client can choose, begins with the name of its
profile, and a rule for each profile sets its levels and exclusions before the first rule of the Core Rule Set runs.
https://coreruleset.org/docs/2-how-crs-works/
"""

from __future__ import annotations

from collections.abc import Mapping

from filters.waf.names import Excluded, WafSource

SCORE = 200_100
"""The id of the rule that reports the score."""
FIRST_PROFILE = 100_000
"""The id of the rule of the first profile."""
MOST_ARGUMENTS = 1_000
"""Arguments, or values of a JSON body, of which a request with more is rejected. Each costs time in every rule."""
LONGEST = 16 << 10
"""Bytes of a value. The time of the rules for one value grows with the square of its length."""
METHODS = "GET HEAD POST OPTIONS PUT PATCH DELETE"
CONTENT_TYPES = (
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/related",
    "text/xml",
    "text/plain",
    "application/xml",
    "application/soap+xml",
    "application/json",
    "application/problem+json",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/vnd.api+json",
    "application/octet-stream",
    "application/grpc",
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
)
"""Types that rule 920420 accepts. The default of the Core Rule Set has those of forms, XML and plain JSON only."""
_ALL = f"""
SecRuleEngine On
SecAuditEngine Off
SecRequestBodyAccess On
SecResponseBodyAccess Off
SecRequestBodyLimit 4194304
SecRequestBodyNoFilesLimit 4194304
SecRequestBodyLimitAction Reject
SecRequestBodyJsonDepthLimit 256
SecArgumentsLimit {MOST_ARGUMENTS}
SecDefaultAction "phase:1,log,pass"
SecDefaultAction "phase:2,log,pass"
SecRule REQUEST_HEADERS:Content-Type "@rx ^(?:application(?:/soap\\+|/)|text/)xml" \
    "id:200000,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML"
SecRule REQUEST_HEADERS:Content-Type "@rx ^application/(?:[a-z0-9.-]+\\+)?json" \
    "id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
SecRule REQBODY_ERROR "!@eq 0" \
    "id:200002,phase:2,t:none,log,deny,status:403,msg:'The request body cannot be parsed',logdata:'%{{reqbody_error_msg}}',severity:2"
SecRule MULTIPART_STRICT_ERROR "!@eq 0" \
    "id:200003,phase:2,t:none,log,deny,status:403,msg:'The multipart request body is malformed',severity:2"
SecRule &ARGS "@ge {MOST_ARGUMENTS}" \
    "id:200007,phase:2,t:none,log,deny,status:403,msg:'The request has too many arguments',severity:2"
SecAction "id:900990,phase:1,pass,t:none,nolog,\
setvar:tx.crs_setup_version=4000,\
setvar:'tx.allowed_methods={METHODS}',\
setvar:'tx.allowed_request_content_type={" ".join(f"|{one}|" for one in CONTENT_TYPES)}'"
"""
_BOUNDS = f"""
SecRule REQUEST_HEADERS|REQUEST_URI "@gt {LONGEST}" \
    "id:200009,phase:1,t:none,t:length,log,deny,status:403,msg:'A header or the URL is too long to be inspected',severity:2"
SecRule ARGS|XML:/* "@gt {LONGEST}" \
    "id:200008,phase:2,t:none,t:length,log,deny,status:403,msg:'An argument is too long to be inspected',severity:2"
"""
"""Directives behind the profiles, which may exclude them."""
LAST = f"""
SecAction "id:{SCORE},phase:5,pass,t:none,log,msg:'score %{{tx.blocking_inbound_anomaly_score}}'"
"""
"""Directives after the Core Rule Set."""


def first(profiles: Mapping[str, WafSource]) -> str:
    """The directives before the Core Rule Set."""
    rules = (
        _profile(FIRST_PROFILE + number, name, source)
        for number, (name, source) in enumerate(sorted(profiles.items()))
    )
    return _ALL + "\n".join(rules) + "\n" + _BOUNDS


def _profile(number: int, name: str, source: WafSource) -> str:
    actions = [
        f"id:{number},phase:1,pass,t:none,nolog",
        f"setvar:tx.blocking_paranoia_level={source.paranoia}",
        f"setvar:tx.inbound_anomaly_score_threshold={source.threshold}",
        *(_exclusion(one) for one in source.exclude),
    ]
    return f'SecRule UNIQUE_ID "@beginsWith {name}." "{",".join(actions)}"'


def _exclusion(one: Excluded) -> str:
    which = f"ById={one.rule}" if one.rule is not None else f"ByTag={one.tag}"
    return f"ctl:ruleRemove{which}" if one.target is None else f"ctl:ruleRemoveTarget{which};{one.target}"


def spaced(rules: str) -> str:
    """A file of rules that ModSecurity 3 can read.

    It takes a rule for the actions of the one before, if that is the last of a chain, has none and no empty line follows
    (findings/libmodsecurity-rule-without-actions.sh).
    """
    return rules.replace("\nSec", "\n\nSec")
