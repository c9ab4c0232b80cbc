"""The errors' names and their tree, as the head of the module draws it."""

import re

from headwater import errors


def test_the_tree_at_the_head_is_that_of_the_classes() -> None:
    """Each error is drawn once, below the one that it is a kind of."""
    drawn: dict[str, str] = {}
    above: dict[str, str] = {"x": "HeadwaterError"}
    for mark, name in re.findall(r"^ +([x+]) (\w+) ", errors.__doc__ or "", re.MULTILINE):
        assert name not in drawn
        drawn[name] = above[mark]
        if mark == "x":
            above["+"] = name
    classes = {name: getattr(errors, name) for name in errors.__all__ if name != "HeadwaterError"}
    assert drawn == {name: one.__base__.__name__ for name, one in classes.items()}
    assert errors.HeadwaterError.__base__ is Exception
