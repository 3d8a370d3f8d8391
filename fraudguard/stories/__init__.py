"""Realistic account stories, made from a seed: what the demo replays and the starter model learns from.

Knows phrases, plots and ordinary lives as data (bank/). Knows nothing of screening: it only makes events.
"""

from fraudguard.stories.cast import Cast, Story, StoryEvent, generate

__all__ = ["Cast", "Story", "StoryEvent", "generate"]
