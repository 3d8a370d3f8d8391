"""fraudguard: real-time fraud screening over the account's timeline of chat and money.

The package's rooms follow the flow of an event: events -> features -> engine -> rules -> decisions -> api.
"""

__version__ = "0.1.0"
