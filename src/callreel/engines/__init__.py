"""Speech to text: the Engine protocol, one file an engine, the catalogue, and the engine's own process."""
