"""The demo's page, one static file, and the headers that keep a browser from loading or running anything else in it."""

import base64
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).with_name("demo.html").read_text(encoding="utf-8")


def security_headers(page: str) -> dict[str, str]:
    """Return HTTP headers that allow a page its own script and style, by their hashes, and no others."""
    script, style = (_sha256(re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)) for tag in ("script", "style"))
    return {
        "Content-Security-Policy": f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _sha256(texts: list[str]) -> str:
    (text,) = texts
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
