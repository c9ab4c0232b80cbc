"""Rules over views, and what they have found: the pure part, as a pipeline definition uses it."""

from processors.alerts.rules import Condition, Rule, above, absent, below, falling, rising

__all__ = ["Condition", "Rule", "above", "absent", "below", "falling", "rising"]
