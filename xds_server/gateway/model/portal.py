"""portal: the address and the look of the developer portal, its pages, and how people log in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar
from urllib.parse import urlsplit

from filters.language import DataSource, Mistake, Shorthand, option
from filters.language.datasource import SecretSource
from filters.model import origins
from xds_server.gateway.model.catalog import MarkdownFile, repeated_pages

CONTRAST = 4.5
"""The smallest contrast of text (WCAG 2.2, success criterion 1.4.3)."""


def contrast_with_white(color: str) -> float:
    """Return the contrast of a color ``#rrggbb`` with white, from 1 to 21 (WCAG 2.2, definition of contrast ratio)."""
    shares = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares)
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile(DataSource):
    """An image: a file of SVG, PNG or WebP in the gateway's folder."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a file")

    @classmethod
    def short(cls, value: str) -> ImageFile:
        """The image in a file. Raises Mistake."""
        result = cls(file=value)
        for mistake in result.check():
            raise mistake
        return result

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless a file of a known kind is named."""
        if self.file is None or self.env is not None or self.inline is not None:
            yield Mistake("an image must be a file in the gateway's folder", "write {file: logo.svg}")
        elif not self.file.lower().endswith((".svg", ".png", ".webp")):
            yield Mistake("not a known kind of image", "use a file .svg, .png or .webp", value=self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalLogin:
    """The issuer at which people log in to the portal, with OpenID Connect."""

    issuer: str = option(
        "The issuer. Its configuration is read from `ISSUER/.well-known/openid-configuration`.",
        pattern=r"https?://[^\s?#]+",
        shape="an http(s) URL",
    )
    client_id: str = option("The portal's id at the issuer.")
    client_secret: SecretSource = option("The portal's secret at the issuer.")
    scopes: tuple[str, ...] = option(
        "The scopes that the portal requests.",
        default=("openid", "email", "profile"),
        pattern=r"[!#-\[\]-~]+",
        shape="a scope",
        narrows=True,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if the issuer would send no identity."""
        if "openid" not in self.scopes:
            message = "without the scope openid, the issuer does not say who logged in"
            yield Mistake(message, "add openid", path=("scopes",), value=self.scopes)


_BASE = r"https?://[^\s/?#@\"<>]+(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*[A-Za-z0-9._~!$&'()*+,;=:@%-])?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Portal(Mapping[str, Any]):
    """The developer portal. As a mapping it has the keys that a user wrote."""

    url: str | None = option(
        "The address of the portal in browsers; needed.",
        default=None,
        pattern=_BASE,
        shape="a URL without a slash at its end",
    )
    gateway: str | None = option(
        "The address at which developers call the APIs: in samples, and for calls from the portal's pages; needed.",
        default=None,
        pattern=_BASE,
        shape="a URL without a slash at its end",
    )
    name: str = option("The name of the portal.", default="Developer portal")
    accent: str = option(
        "The color of links and buttons. Text in it must be readable on white, with a contrast of 4.5.",
        default="#0b57d0",
        pattern=r"#[0-9a-fA-F]{6}",
        shape='a color such as "#0b57d0"',
    )
    logo: ImageFile | None = option("The logo.", default=None)
    docs: tuple[MarkdownFile, ...] = option("Pages of the portal itself.", default=())
    login: PortalLogin | None = option(
        "The issuer at which people log in. Without it they come by invitation links.", default=None
    )

    @property
    def declared(self) -> bool:
        """True if the gateway has a portal."""
        return self.url is not None

    @property
    def origin(self) -> str | None:
        """The origin of the portal's pages, as browsers send it, or None without a portal."""
        return None if self.url is None else _origin(self.url)

    @property
    def calls_other_origin(self) -> bool:
        """True if pages of the portal call the gateway at another origin, so that CORS has to allow them."""
        return self.url is not None and self.gateway is not None and self.origin != _origin(self.gateway)

    def api_url(self, name: str) -> str | None:
        """The address of the page of an API, or None without a portal."""
        return None if self.url is None else f"{self.url}/apis/{name}"

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of addresses and of the color."""
        for key in ("url", "gateway"):
            address = getattr(self, key)
            if address is None:
                yield Mistake(f"'{key}' is missing", f"add {key}: https://…")
            elif (fault := origins.fault(_origin(address))) is not None:
                yield Mistake(fault[0], fault[1], path=(key,), value=address)
        contrast = contrast_with_white(self.accent)
        if contrast < CONTRAST:
            yield Mistake(
                f"text in this color cannot be read on white: its contrast is {contrast:.1f} and not {CONTRAST}",
                f"choose a darker color, such as {_darker(self.accent)}",
                path=("accent",),
                value=self.accent,
            )
        yield from repeated_pages(self.docs)

    def __getitem__(self, key: str) -> Any:
        if key not in KEYS or getattr(self, key) == _DEFAULTS[key]:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (key for key in KEYS if getattr(self, key) != _DEFAULTS[key])

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _darker(color: str) -> str:
    """Return the lightest color of the same hue, in steps of 1 percent, that is readable on white."""
    shares = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    for percent in range(99, 0, -1):
        found = "#" + "".join(f"{one * percent // 100:02x}" for one in shares)
        if contrast_with_white(found) >= CONTRAST:
            return found
    return "#000000"


KEYS = tuple(one.name for one in fields(Portal))
_DEFAULTS = {one.name: one.default for one in fields(Portal)}
NO_PORTAL = Portal()
