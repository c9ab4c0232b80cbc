"""Define alert rules over views: the conditions and the rule that `Pipeline.alert` makes of them.

This face exports the pure part alone, which a pipeline definition needs; the service that evaluates rules is in
`service`.
"""

from headwater.processors.alerts.rules import Condition, Rule, above, absent, below, falling, rising

__all__ = ["Condition", "Rule", "above", "absent", "below", "falling", "rising"]
