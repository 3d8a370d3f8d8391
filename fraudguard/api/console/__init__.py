"""The analysts' console: pages over the same functions as the REST API. docs/console.md says how it is meant."""
