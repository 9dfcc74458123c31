"""Who may do what: clients, their keys and roles."""
