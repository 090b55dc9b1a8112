"""One process a run: two that wrote into the same folder would tear its log and its checkpoints."""

import contextlib
import os
from collections.abc import Iterator

from bert_jax.durable_files import take_lock
from bert_jax.errors import UserError


@contextlib.contextmanager
def lock_run(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a run's folder; the system lets go of it when the process ends, in whatever way.

    The folder itself is locked (flock), so that nothing has to be cleaned up.

    Raises:
        UserError: another process holds it.
    """
    folder = os.open(workdir, os.O_RDONLY)
    try:
        if not take_lock(folder):
            raise UserError(
                f"--workdir={workdir} is in use: another process trains there; wait for it, end it, or give another"
            )
        yield
    finally:
        os.close(folder)
