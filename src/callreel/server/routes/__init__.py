"""HTTP, one file a resource. A route parses, calls, answers."""
