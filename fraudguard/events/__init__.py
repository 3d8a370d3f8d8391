"""The door of the wire: bytes to validated, masked events, the topics they come on, and what happens to bad ones."""
