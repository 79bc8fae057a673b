"""The tests. Their own processes log from info on: each request's line would drown the rest."""

import logging

import structlog

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
