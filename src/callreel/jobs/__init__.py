"""Durable work: the job row, its states, its queue in SQL and its lease; it knows no handler."""
