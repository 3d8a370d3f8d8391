"""Features of events by account and shared entity, and the account's timeline. Pure: rows are stored by decisions/."""
