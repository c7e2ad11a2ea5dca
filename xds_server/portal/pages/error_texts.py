"""The messages of errors in Korean. The store writes them in English, with values in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from xds_server.marketplace.errors import MarketplaceError
from xds_server.portal.pages.texts import KOREAN, translator

_KOREAN_ERRORS: Mapping[str, str] = {
    # rights
    "there is no such {what}; check its identifier": "해당 항목이 없습니다. 식별자를 확인하세요.",
    "the token needs the scope publish; make another one": "토큰에 publish 권한 범위가 필요합니다. 새 토큰을 만드세요.",
    "only publishers and admins may do this; ask one of them": "게시자와 관리자만 할 수 있습니다.",
    "only admins may do this; ask one of them": "관리자만 할 수 있습니다.",
    "only members of the organisation may do this; ask one of its owners to add you": "조직의 구성원만 할 수 있습니다. 소유자에게 추가를 요청하세요.",
    "only owners of the organisation may do this; ask one of them": "조직의 소유자만 할 수 있습니다.",
    "log in first": "먼저 로그인하세요.",
    # applications, organisations, people
    "the organisation has or had an application '{slug}'; choose another slug": "조직에 애플리케이션 '{slug}'이(가) 있거나 있었습니다. 다른 슬러그를 선택하세요.",
    "an organisation has at most {most} applications; use one that there is": "조직의 애플리케이션은 최대 {most}개입니다. 기존 애플리케이션을 사용하세요.",
    "the slug '{slug}' is reserved; ask an admin for this organisation": "슬러그 '{slug}'은(는) 예약되어 있습니다. 관리자에게 문의하세요.",
    "there is an organisation '{slug}' already; choose another slug": "조직 '{slug}'이(가) 이미 있습니다. 다른 슬러그를 선택하세요.",
    "there is a user {email} already": "사용자 {email}이(가) 이미 있습니다.",
    "there is a user {email} already, with the role {role}; change the role of this user, and then invite": "역할이 {role}인 사용자 {email}이(가) 이미 있습니다. 먼저 이 사용자의 역할을 변경한 뒤 초대하세요.",
    "you would lock yourself out; let another admin do this": "자신의 권한을 잃게 됩니다. 다른 관리자에게 맡기세요.",
    "an organisation needs an owner; make another member its owner first": "조직에는 소유자가 필요합니다. 먼저 다른 구성원을 소유자로 지정하세요.",
    "this link is unknown, was used already or is too old; ask for a new one": "알 수 없거나 이미 사용되었거나 만료된 링크입니다. 새 링크를 요청하세요.",
    "whoever made this link may no longer invite people; ask somebody else for a new one": "링크를 만든 사람에게 더 이상 초대 권한이 없습니다. 다른 사람에게 새 링크를 요청하세요.",
    "log in as {email} first, and open the link again": "먼저 {email}(으)로 로그인한 뒤 링크를 다시 여세요.",
    "this user is disabled; ask an admin": "비활성화된 사용자입니다. 관리자에게 문의하세요.",
    "the token has only the scopes {scopes}": "토큰의 권한 범위는 {scopes}뿐입니다.",
    "your logins have ended; log in again": "로그인이 종료되었습니다. 다시 로그인하세요.",
    # login
    "the provider has not verified the address of mail; verify it there first": "로그인 제공자가 이메일 주소를 확인하지 않았습니다. 먼저 그곳에서 확인하세요.",
    "another identity has this address; ask an admin": "다른 계정이 이 주소를 사용합니다. 관리자에게 문의하세요.",
    "this login was not begun in this browser, or too long ago; log in again": "이 브라우저에서 시작하지 않았거나 너무 오래된 로그인입니다. 다시 로그인하세요.",
    "this login was not begun in this browser; log in again": "이 브라우저에서 시작하지 않은 로그인입니다. 다시 로그인하세요.",
    "the issuer refused the login: {why}": "로그인 제공자가 거부했습니다: {why}",
    "the issuer refused the login (status {status}); log in again": "로그인 제공자가 거부했습니다(상태 {status}). 다시 로그인하세요.",
    "the issuer answered another login; log in again": "로그인 제공자의 응답이 다른 로그인에 대한 것입니다. 다시 로그인하세요.",
    "the issuer sent an identity for another client": "로그인 제공자가 다른 클라이언트의 신원을 보냈습니다.",
    "the issuer sent an identity that cannot be used: {why}": "로그인 제공자가 보낸 신원을 사용할 수 없습니다: {why}",
    "the issuer calls itself {name}; write that in portal.login.issuer": "로그인 제공자의 이름은 {name}입니다. portal.login.issuer에 그대로 쓰세요.",
    "the issuer cannot be reached: {why}; try again": "로그인 제공자에 연결할 수 없습니다({why}). 다시 시도하세요.",
    "the configuration of the issuer has no {key}": "로그인 제공자의 설정에 {key}이(가) 없습니다.",
    # values
    "write 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends": "영문 소문자, 숫자, 하이픈으로 1~63자를 입력하세요. 양 끝은 문자나 숫자여야 합니다.",
    "write an address such as ada@example.com": "ada@example.com 같은 이메일 주소를 입력하세요.",
    "write at least one character": "한 글자 이상 입력하세요.",
    "write at least one of {values}": "{values} 중 하나 이상을 선택하세요.",
    "write at most {most} characters; these are {number}": "최대 {most}자까지 입력하세요. 지금은 {number}자입니다.",
    "write at most {most} names": "이름은 최대 {most}개까지 입력하세요.",
    "write one of {values}": "{values} 중 하나를 선택하세요.",
    "remove control characters": "제어 문자를 제거하세요.",
    "write a number from 1 to {most}": "1부터 {most}까지의 숫자를 입력하세요.",
    "write an integer from {least} to {most}": "{least}부터 {most}까지의 정수를 입력하세요.",
    "write a whole number": "정수를 입력하세요.",
    "write a text": "텍스트를 입력하세요.",
    "write a list of names": "이름 목록을 입력하세요.",
    "write a day such as {day}": "{day} 같은 날짜를 입력하세요.",
    "write a month such as {month}": "{month} 같은 월을 입력하세요.",
    "write a moment in the future": "미래의 시각을 입력하세요.",
    "write a moment in the future, or cancel the subscription": "미래의 시각을 입력하거나 구독을 해지하세요.",
    "write a moment before the end of the year 9999": "9999년이 끝나기 전의 시각을 입력하세요.",
    "use the value of `next` of the page before": "이전 페이지의 `next` 값을 사용하세요.",
    # products and prices
    "this product is written in the gateway's YAML; change it there, or remove it to retire it": "게이트웨이의 YAML에 작성된 상품입니다. 그곳에서 변경하거나, 종료하려면 그곳에서 제거하세요.",
    "the product is written in the gateway's YAML; change it there": "게이트웨이의 YAML에 작성된 상품입니다. 그곳에서 변경하세요.",
    "a slug never changes; make another product": "슬러그는 바꿀 수 없습니다. 새 상품을 만드세요.",
    "there is a product '{slug}' already; choose another slug": "상품 '{slug}'이(가) 이미 있습니다. 다른 슬러그를 선택하세요.",
    "products.{slug} of the gateway's YAML and the product '{other}' of the portal have the same name; rename one of them": "게이트웨이의 YAML에 있는 products.{slug}와(과) 포털의 상품 '{other}'의 이름이 같습니다. 하나의 이름을 바꾸세요.",
    "the plan '{plan}' has subscriptions; cancel them first": "요금제 '{plan}'에 구독이 있습니다. 먼저 구독을 해지하세요.",
    "the plan '{plan}' has calls of {month}, which is not closed yet; remove it then": "요금제 '{plan}'에 아직 마감되지 않은 {month}의 호출이 있습니다. 마감된 뒤에 제거하세요.",
    "a product with subscriptions keeps its currency; make another product": "구독이 있는 상품의 통화는 바꿀 수 없습니다. 새 상품을 만드세요.",
    "there is no such field; the fields are {fields}": "없는 항목입니다. 사용할 수 있는 항목: {fields}",
    "write a list of plans": "요금제 목록을 입력하세요.",
    "write each plan once": "요금제를 한 번씩만 입력하세요.",
    "write one currency for all plans of a product, not {currencies}": "상품의 모든 요금제에 같은 통화를 입력하세요. 지금은 {currencies}입니다.",
    "a product needs at least one API and one plan": "상품에는 API와 요금제가 하나 이상 필요합니다.",
    "the gateway has no '{name}'; it has {known}": "게이트웨이에 '{name}'이(가) 없습니다. 있는 것: {known}",
    "write an object with {keys}": "{keys}이(가) 있는 객체를 입력하세요.",
    "write a code of ISO 4217 such as EUR": "EUR 같은 ISO 4217 통화 코드를 입력하세요.",
    "write per_call or tiers, and not both": "per_call과 tiers 중 하나만 입력하세요.",
    "write a list of statuses such as 404 or 2xx": "404나 2xx 같은 상태 코드 목록을 입력하세요.",
    "write statuses as texts such as '404' or '2xx'": "'404'나 '2xx' 같은 상태 코드를 텍스트로 입력하세요.",
    "write graduated or volume": "graduated나 volume을 입력하세요.",
    "write a list of 1 to 100 steps": "1~100개의 구간을 입력하세요.",
    "write up_to in every step but the last": "마지막을 제외한 모든 구간에 끝 호출 번호를 입력하세요.",
    "'{key}' has no effect, because calls have no price; add 'per_call' or 'tiers', or remove it": "호출 요금이 없어 '{key}'은(는) 효과가 없습니다. 호출 요금을 입력하거나 이 값을 지우세요.",
    "write an amount such as {amount}": "{amount} 같은 금액을 입력하세요.",
    "write an amount for calls, or choose that they cost nothing": "호출 금액을 입력하거나, 요금 없음을 선택하세요.",
    "write one amount without an end, or choose prices by steps": "끝이 없는 금액 하나만 입력하거나 구간별 요금을 선택하세요.",
    "write a currency such as EUR, or no amounts": "EUR 같은 통화를 입력하거나 금액을 지우세요.",
    "choose what calls cost, or empty the amounts of calls": "호출 요금 방식을 선택하거나 호출 금액을 지우세요.",
    "choose the plan that has this price, or empty the currency": "이 가격의 요금제를 선택하거나 통화를 지우세요.",
    "write the amount of this step, or empty its other fields": "이 구간의 금액을 입력하거나 다른 칸을 지우세요.",
    # subscriptions and keys
    "the product '{slug}' takes no subscriptions now": "상품 '{slug}'은(는) 지금 구독을 받지 않습니다.",
    "the product has no such plan": "상품에 그런 요금제가 없습니다.",
    "the product has no such plan; it has {known}": "상품에 그런 요금제가 없습니다. 있는 요금제: {known}",
    "accept the terms of the product first": "먼저 상품 약관에 동의하세요.",
    "the application has a subscription to this product already; cancel it first, or change its plan": "이 애플리케이션은 이미 이 상품을 구독하고 있습니다. 먼저 해지하거나 요금제를 변경하세요.",
    "the subscription is {state}; make a new one": "구독 상태가 '{state}'입니다. 새로 구독하세요.",
    "the subscription is {state}; {action} is possible if it is {states}": "구독 상태가 '{state}'일 때는 할 수 없는 작업입니다.",
    "the subscription is suspended; ask a publisher to resume or to end it": "정지된 구독입니다. 게시자에게 재개나 해지를 요청하세요.",
    "this plan needs approval; cancel the subscription and request one on this plan": "승인이 필요한 요금제입니다. 구독을 해지하고 이 요금제로 다시 신청하세요.",
    "too many keys; try again in {seconds} s": "키를 너무 많이 만들었습니다. {seconds}초 후에 다시 시도하세요.",
    "too many attempts; try again in {seconds} s": "시도가 너무 많습니다. {seconds}초 후에 다시 시도하세요.",
    # bills and clients
    "the amount of {consumer}, {total}, is too large; correct the price": "{consumer}의 금액 {total}이(가) 너무 큽니다. 가격을 고치세요.",
    "calls of {month} can arrive until two hours after its end; close it then": "{month}의 호출은 월말 두 시간 뒤까지 도착할 수 있습니다. 그 뒤에 마감하세요.",
    "no client can be made of this document: only OpenAPI 3.2 can say a part of it": "이 문서에는 OpenAPI 3.2에만 있는 부분이 있어 클라이언트를 만들 수 없습니다.",
    "no client can be made of this document in {language}; download the document and use another generator": "이 문서로는 {language} 클라이언트를 만들 수 없습니다. 문서를 내려받아 다른 생성기를 사용하세요.",
    "the client was not made within {seconds} s; the document is too large": "문서가 너무 커서 {seconds}초 안에 클라이언트를 만들지 못했습니다.",
    "the client is too large": "클라이언트가 너무 큽니다.",
    "the client is being made; try again in a moment": "클라이언트를 만들고 있습니다. 잠시 후 다시 시도하세요.",
    # pages and the store
    "the page is too old; go back, reload it and try again": "페이지가 오래되었습니다. 뒤로 가서 새로 고친 뒤 다시 시도하세요.",
    "a page of another site cannot do this; open the portal and try again": "다른 사이트의 페이지에서는 할 수 없습니다. 포털을 열어 다시 시도하세요.",
    "somebody else has changed this since you read it; read it again and repeat your change": "읽은 뒤에 다른 사람이 변경했습니다. 다시 읽고 변경하세요.",
    "somebody else did the same at this moment; look at the result and try again": "같은 순간에 다른 사람이 같은 작업을 했습니다. 결과를 확인하고 다시 시도하세요.",
    "the store cannot be reached; try again": "저장소에 연결할 수 없습니다. 다시 시도하세요.",
}  # fmt: skip
"""By the messages in English, with names in braces for their values."""
_WORDS = frozenset({"state", "role"})
"""Values that are words of the portal, and not names of somebody."""
_VALUE = re.compile(r"\\\{(\w+)\\\}")


_LABELS: Mapping[str, str] = {
    "accepts_terms": "Terms",
    "amount": "Amount",
    "apis": "APIs",
    "approval": "Approval",
    "charge": "What calls cost",
    "currency": "Currency; empty if it is free of charge",
    "description": "Description",
    "email": "Address of mail",
    "included": "Calls included in a month",
    "monthly": "Amount for each month",
    "name": "Name",
    "note": "Note",
    "per": "For how many calls",
    "plan": "Plan",
    "plans": "Plans",
    "role": "Role",
    "scopes": "Scopes",
    "slug": "Slug",
    "statuses": "Statuses that count; empty for the usual ones",
    "summary": "Summary",
    "terms": "Terms",
    "text": "Text",
    "title": "Title",
    "until": "valid until",
    "up_to": "Up to call",
    "visible_to": "Organisations that see it; empty for all",
}
"""Labels of the fields of forms."""
_IN_FORMS: Mapping[str, str] = {"not_after": "until", "expires": "until"}
"""Names of fields in forms, by those of the marketplace if they differ."""


def name_in_form(field: str) -> str:
    """Return the name that a field of the marketplace has in forms."""
    return _IN_FORMS.get(field, field)


def of_form(language: str, rejected: MarketplaceError) -> str:
    """Return the message of an error of a form after the label of the field, if that has one."""
    name, _, _ = name_in_form(rejected.field).partition("-")
    message = error(language, rejected.message)
    label = _LABELS.get(name, rejected.field)
    return f"{translator(language)(label)}: {message}" if label else message


def error(language: str, message: str) -> str:
    """Return the message of an error in a language, in English if there is no translation."""
    if language != "ko":
        return message
    for pattern, text in _patterns():
        if (found := pattern.fullmatch(message)) is not None:
            return text.format(
                **{
                    name: KOREAN.get(one, one) if name in _WORDS else one
                    for name, one in found.groupdict().items()
                }
            )
    return message


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return the patterns of all messages with the Korean texts. Those with the fewest values come first."""
    some = sorted(_KOREAN_ERRORS.items(), key=lambda one: one[0].count("{"))
    return [
        (re.compile(_VALUE.sub(r"(?P<\1>.*)", re.escape(english)), re.DOTALL), text) for english, text in some
    ]
