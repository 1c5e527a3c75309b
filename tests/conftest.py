"""Settings for every test: property tests have no clock and draw the same examples each time."""

from hypothesis import settings

# A busy machine is no failure, and a suite that differs from run to run cannot be trusted.
settings.register_profile("stable", deadline=None, derandomize=True)
settings.load_profile("stable")
