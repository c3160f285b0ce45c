"""What an operator may set about the service."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from distildire.io.pictures import MIN_SIDE

KEY_VARIABLE = "DISTILDIRE_API_KEY"
"""Environment variable of the bearer key; the key is never taken from the command line,
where every user of the machine could read it."""


@dataclass(frozen=True)
class Settings:
    """Limits of the service; the defaults fit a laptop or a small server."""

    max_body: int = 64 * 2**20
    """Bytes of one request, all its files together."""
    max_pixels: int = 50_000_000
    """Pixels of one picture (150 MB once decoded)."""
    max_files: int = 64
    """Files of one request."""
    queue_size: int = 256
    """Files waiting or being scored, over all requests; past it the answer is 429."""
    max_requests: int = 256
    """Requests being read or answered at once."""
    max_in_flight: int = 512 * 2**20
    """Bytes of all their bodies together; a request that doesn't announce its length counts
    as one of `max_body`."""
    max_explanations: int = 8
    """Explanations, records and requests with videos, waiting or at work; one at a time is made."""
    read_seconds: float = 60.0
    """For the whole body of a request to arrive."""
    answer_seconds: float = 120.0
    """From the whole body to the answer."""
    isolate: bool = False
    """Decode uploads in processes of their own, so that a file that crashes its decoder costs one
    answer; `distildire serve` does. A process takes about 40 MB."""
    key: str | None = field(default=None, repr=False)
    """Bearer key that `/v1` and `/metrics` ask for, in printable Latin-1; none asked where it is
    None."""

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name not in {"key", "isolate"}):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number above 0")
        if self.max_files > self.queue_size:
            raise ValueError(
                f"max_files is {self.max_files}, over queue_size ({self.queue_size}): a full "
                "request could never be taken"
            )
        if self.max_body > self.max_in_flight:
            raise ValueError(
                f"max_body is {self.max_body}, over max_in_flight ({self.max_in_flight}): such a "
                "request could never be taken"
            )
        if self.max_pixels < MIN_SIDE**2:
            raise ValueError(f"max_pixels is {self.max_pixels}: give at least {MIN_SIDE**2}")
        if self.key is not None and not self.key.strip():
            raise ValueError(f"the key is empty: unset {KEY_VARIABLE}, or give it a value")
        if self.key is not None and not self.key.isprintable():
            raise ValueError(
                f"the key in {KEY_VARIABLE} has several lines, or letters that can't be typed: no "
                "request could send it"
            )
        if self.key is not None and any(ord(letter) > 255 for letter in self.key):
            raise ValueError(
                f"the key in {KEY_VARIABLE} has letters outside Latin-1, which no browser can send"
            )


def key_from_environment(environment: Mapping[str, str] | None = None) -> str | None:
    """The bearer key in `DISTILDIRE_API_KEY`, or None where it is not set.

    Without the spaces and line ends around it, which files bring along and no header can hold.
    """
    key = (os.environ if environment is None else environment).get(KEY_VARIABLE)
    return None if key is None else key.strip()
