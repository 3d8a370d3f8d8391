"""Realistic account stories, made from a seed: what the demo replays and the starter model learns from.

Knows phrases, plots and ordinary lives as data (bank/). Knows nothing of screening: it only makes events.
"""

from fraudguard.stories.cast import Cast, Story, StoryEvent, generate
from fraudguard.stories.unfolding import Moment, unfold

__all__ = ["Cast", "Moment", "Story", "StoryEvent", "generate", "unfold"]
