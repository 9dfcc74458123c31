"""python -m callreel is the callreel command."""

from __future__ import annotations

from callreel.cli import main

main()
