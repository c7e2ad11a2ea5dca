"""What the engine is told: directives for the settings of all routes."""

from __future__ import annotations

from filters.waf import directives
from filters.waf.names import Excluded, WafSource
from filters.waf.settings import Exclusion, WafSettings


def _source(*exclude: Excluded, paranoia: int = 1) -> WafSource:
    return WafSource(
        paranoia=paranoia, threshold=5, blocks=True, lenient=False, timeout=1, body=True, exclude=exclude
    )


def _rules(**sources: WafSource) -> list[str]:
    return [line for line in directives.first(sources).splitlines() if "UNIQUE_ID" in line]


def test_each_settings_have_a_rule_of_their_own() -> None:
    first, second = _rules(b=_source(paranoia=3), a=_source())
    assert first.startswith('SecRule UNIQUE_ID "@beginsWith a." "id:100000,phase:1,pass,t:none,nolog,')
    assert second.startswith('SecRule UNIQUE_ID "@beginsWith b." "id:100001,')
    assert "setvar:tx.blocking_paranoia_level=3,setvar:tx.inbound_anomaly_score_threshold=5" in second


def test_exclusions_are_controls() -> None:
    (rule,) = _rules(
        a=_source(
            Excluded(942100, None, None),
            Excluded(None, "attack-xss", None),
            Excluded(942100, None, "ARGS:text"),
            Excluded(None, "attack-rce", "REQUEST_COOKIES"),
        )
    )
    assert rule.endswith(
        ",ctl:ruleRemoveById=942100,ctl:ruleRemoveByTag=attack-xss,ctl:ruleRemoveTargetById=942100;ARGS:text,"
        'ctl:ruleRemoveTargetByTag=attack-rce;REQUEST_COOKIES"'
    )


def test_names_of_headers_are_in_lower_case() -> None:
    settings = WafSettings(exclude=(Exclusion(rule=942100, target="REQUEST_HEADERS:X-Note"),))
    assert settings.source().exclude == (Excluded(942100, None, "REQUEST_HEADERS:x-note"),)


def test_equal_settings_have_one_name() -> None:
    assert _source().name == _source().name
    assert _source().name != _source(paranoia=2).name


def test_an_empty_line_ends_a_rule_without_actions() -> None:
    assert directives.spaced("    SecRule A b\nSecRule C d") == "    SecRule A b\n\nSecRule C d"
