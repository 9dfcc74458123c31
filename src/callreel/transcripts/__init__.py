"""Transcripts and their segments: the store, the collector (the only writer of segments), and the formats."""
