"""Policy, cases and the decision store: the only room that knows SQLAlchemy and PostgreSQL."""
