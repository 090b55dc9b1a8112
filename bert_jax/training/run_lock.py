"""One process a run: two that wrote into the same folder would tear its log and its checkpoints."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from bert_jax.errors import UserError

# File systems that cannot lock a folder: the run goes on without.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EINVAL)


@contextlib.contextmanager
def lock_run(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a run's folder; the system lets go of it when the process ends, in whatever way.

    The folder itself is locked (flock), so that nothing has to be cleaned up.

    Raises:
        UserError: another process holds it.
    """
    folder = os.open(workdir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"--workdir={workdir} is in use: another process trains there; wait for it, end it, or give another"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(folder)
