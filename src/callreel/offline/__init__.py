"""Files to transcripts: chunks cut at pauses, decoded in batches, put together again in order of time."""
