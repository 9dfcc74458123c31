"""How the database came to be, one numbered step a file; Alembic runs what a database has not seen yet."""
