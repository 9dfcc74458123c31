"""HTTP to strangers' URLs, checked: it reaches public addresses, and private ones only where they are allowed."""

from __future__ import annotations

from callreel.net.addresses import check_url
from callreel.net.connection import CONNECT_S, READ_S
from callreel.net.fetching import Fetched, fetch
from callreel.net.posting import Answer, post

__all__ = ["CONNECT_S", "READ_S", "Answer", "Fetched", "check_url", "fetch", "post"]
