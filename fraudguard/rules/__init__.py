"""Rules: YAML to validated, compiled, evaluated hits. The only place that knows durable_rules.

Knows the rule files, their expression language and its evaluation; nothing of how inputs are made or hits acted on.
"""
