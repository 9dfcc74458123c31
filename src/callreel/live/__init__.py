"""Streams to segments while people speak: session, policy, scheduler, track log."""
