"""Give the tests the fixtures of headwater."""

pytest_plugins = ["headwater.testing.plugin"]
