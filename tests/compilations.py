"""The programs that XLA compiles while a test runs."""

import functools

import jax


@functools.cache
def compilations():
    """A list that grows by one whenever XLA compiles."""
    events = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


def assert_second_calls_compile_nothing(calls):
    """`calls`: functions by name; the first call of each must compile."""
    jax.clear_caches()  # of what ran before
    events = compilations()
    for name, call in calls.items():
        before = len(events)
        call()
        assert len(events) > before, name  # the listener hears
        before = len(events)
        call()
        assert len(events) == before, name
