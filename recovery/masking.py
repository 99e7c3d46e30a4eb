"""Secrets are taken out of lines before these leave the machine: sent, posted, or stored."""

from __future__ import annotations

import re

MASK = "[masked]"
_PATTERNS = (
    re.compile(r"-----BEGIN [A-Z ]{1,40}-----.*?(?:-----END [A-Z ]{1,40}-----|$)", re.DOTALL),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"),
    re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|ya29\.)[A-Za-z0-9_.-]{10,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    # A line of a key that was printed over several lines.
    re.compile(r"^[A-Za-z0-9+/]{48,}={0,2}$", re.MULTILINE),
    re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+"),
)
_AFTER_NAME = re.compile(
    r"((?:(?:api|access|account|private)[_-]?key|secret\w{0,40}|passw(?:or)?d|passphrase"
    r"|(?<![A-Za-z])token|auth[_-]?token|access[_-]?token|session[_-]?token|credential\w{0,10}"
    r"|X-Amz-(?:Signature|Credential|Security-Token)|sig(?:nature)?|cookie)"
    r"[\"']?\s{0,3}(?:=|:)\s{0,3}[\"']?)([^\s\"',;&]{4,})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/._~=-]{8,}", re.IGNORECASE)
_IN_URL = re.compile(r"(\w{1,20}://)[^/\s@]{1,300}@")
_AFTER_FLAG = re.compile(
    r"(--[\w-]{0,40}(?:passw(?:or)?d|token|secret|key)\s{1,3})([^\s\"']{4,})", re.IGNORECASE
)


def mask_secrets(text: str) -> str:
    """The text with what looks like a key, password, token or e-mail address replaced by `MASK`.

    It errs on the side of masking: a value after "token=" goes even if it is harmless.
    """
    text = _IN_URL.sub(rf"\1{MASK}@", text)
    for pattern in _PATTERNS:
        text = pattern.sub(MASK, text)
    text = _AFTER_FLAG.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    return _AFTER_NAME.sub(rf"\1{MASK}", text)
