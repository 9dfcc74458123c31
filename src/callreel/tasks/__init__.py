"""What jobs do, one file a kind, and who runs them: a child process for each, started by the local runner."""
