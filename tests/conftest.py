"""Settings of the whole test run."""

from hypothesis import HealthCheck, settings

# No deadline: the machines that run this are shared, and a slow example is no failure.
settings.register_profile("headwater", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headwater")
