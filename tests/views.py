"""What a state's `take` reads besides itself, where a test is not about it: no feedback, no shared windows."""

from fraudguard.features.feedback import FeedbackView
from fraudguard.features.shared import SharedWindows

NOTHING_SHARED = (FeedbackView((), 7), SharedWindows((), ()))
