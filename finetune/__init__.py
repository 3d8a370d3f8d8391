"""From data to a release: readable recipes that anyone can rerun. Nothing in fraudguard imports this."""
