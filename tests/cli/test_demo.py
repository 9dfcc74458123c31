"""`callreel demo`: the sample call, its transcript, and addresses that answer."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.cli.running import DEADLINE_S


def test_the_sample_call_is_transcribed_and_can_be_opened(references: dict[str, Any], tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "callreel", "demo"],
        env={**os.environ, "CALLREEL_HOST": "0.0.0.0", "CALLREEL_FINAL_MODEL": "none"},
        cwd=tmp_path,  # not the checkout
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = "".join(takewhile(lambda line: not line.startswith("Serving"), process.stdout))
        spoken = dict(re.findall(r"^00:\d\d\.\d +(agent|caller)  (.+)$", said, re.MULTILINE)[:2])
        for speaker, text in spoken.items():
            assert text.split()[0] == references["call_stereo.flac"]["tracks"][speaker]["text"].split()[0]
        assert set(spoken) == {"agent", "caller"} and "RTFx" in said
        urls = re.findall(r"http://\S+", said)
        assert len(urls) >= 10
        for url in urls:
            with urlopen(url, timeout=DEADLINE_S) as answer:
                assert answer.status == 200 and answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", urlsplit(urls[0]).port or 0)) != 0
