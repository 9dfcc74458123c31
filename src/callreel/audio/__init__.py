"""Sound as samples: decoding and resampling in constant memory, voice activity, PCM."""
