"""The tests. Their own processes log from info on: each request's line would drown the rest."""

import logging
from contextlib import suppress

import structlog

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))

with suppress(ImportError):  # what is measured by hand needs no hypothesis
    from hypothesis import HealthCheck, settings

    # How long something takes on a busy machine says nothing.
    settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("tests")
