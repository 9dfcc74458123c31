"""Where everything is kept: the database and its migrations, pages of it, and the events that tell of changes."""
