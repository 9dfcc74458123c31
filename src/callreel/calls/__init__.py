"""Calls with their tracks, and the streams that carry audio into them."""
