"""A verb that writes its output in place, file by file: what the tools of benchmarks/faults must find out.

python -m tests.faults.careless_verb careless|careful OUTPUT
"""

import pathlib
import sys

from bert_jax.durable_files import publish, unfinished_folder


def _write(folder: pathlib.Path) -> None:
    for number in range(5):
        (folder / f"part_{number}").write_bytes(b"%d" % number * 1000)


if __name__ == "__main__":
    manner, target = sys.argv[1], pathlib.Path(sys.argv[2])
    if manner == "careful":
        if not target.exists():
            with unfinished_folder(target) as folder:
                _write(folder)
                publish(folder, target)
    else:
        target.mkdir(exist_ok=True)
        _write(target)
