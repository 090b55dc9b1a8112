"""How several processes stop at the same step when one of them is asked to.

The protocol of JAX's preemption service (`multihost_utils.reached_preemption_sync_point`), written again because that
one takes SIGTERM in C++ for itself, forgets it if it comes before the first step, and knows no other signal. It runs in
a thread over the coordination service, so that no step waits for the host: when a request is seen, every process
publishes the last step that it may have gone past, and all stop at the one after the latest of them.
"""

import contextlib
import threading

from bert_jax.parallel.processes import ProcessGroup

_POLL_SECONDS = 0.5
_REQUESTS = "bert_jax/stop/request"
_REQUEST = f"{_REQUESTS}/signal"
_REACHED = "bert_jax/stop/reached"


class StopAgreement:
    """Carries a request to stop, a signal's number, from any process to all. Closes with `close`."""

    def __init__(self, group: ProcessGroup):
        """Begins to listen for the others' requests."""
        self._group = group
        self._wanted: int | None = None
        self._agreed: int | None = None
        self._last_step = 0
        self._has_published = False
        # Before the first call of `due`, no step has been gone past.
        self._reached = -1
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def request(self, number: int) -> None:
        """Asks all to stop; takes no lock, as a signal may come at any moment."""
        self._wanted = number

    def due(self, step: int) -> int | None:
        """Returns the signal if all stop before the step after `step`; to be called with every step in order."""
        with self._lock:
            self._reached = step
            return self._agreed if self._agreed is not None and step >= self._last_step else None

    def close(self) -> None:
        """Stops listening; this process begins no more steps."""
        import jax

        self._closed.set()
        self._thread.join()
        if not self._has_published:
            # Others may still be about to agree, and would wait for this one. Where process 0 is gone, they are not.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._publish()

    def _listen(self) -> None:
        import jax

        client = self._group.client
        try:
            while not self._closed.wait(_POLL_SECONDS):
                if self._wanted is not None:
                    client.key_value_set(_REQUEST, str(self._wanted), allow_overwrite=True)
                if client.key_value_dir_get(_REQUESTS):
                    self._agree(client)
                    return
        except jax.errors.JaxRuntimeError:
            # Process 0 is gone; JAX's own watch ends this process.
            return

    def _publish(self) -> None:
        self._has_published = True
        self._group.client.key_value_set(f"{_REACHED}/{self._group.index}", str(self._reached))

    def _agree(self, client) -> None:
        # While the lock is held, this process begins no step.
        with self._lock:
            self._publish()
            timeout = int(1000 * self._group.timeout)
            reached = [
                int(client.blocking_key_value_get(f"{_REACHED}/{index}", timeout)) for index in range(self._group.count)
            ]
            # A request may have been overwritten while others read it; all read it again after the last has come.
            self._agreed = int(client.blocking_key_value_get(_REQUEST, timeout))
            self._last_step = max(reached) + 1
