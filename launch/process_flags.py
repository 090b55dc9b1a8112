"""The flags that say which processes make up a run."""

import os

from absl import flags

from bert_jax.errors import UserError
from bert_jax.parallel.cluster import find_cluster
from bert_jax.parallel.processes import COORDINATOR_TIMEOUT, HEARTBEAT_TIMEOUT, check_arguments, start_processes
from launch.flag_conditions import only_where

_LONGEST_TIMEOUT = 30 * 24 * 3600
# What processes of one run may be given differently.
# Paths may lead to the same files by different ways; what is in them is compared.
OF_ONE_PROCESS = (
    "process_id",
    "coordinator",
    "local_device_ids",
    "coordinator_timeout",
    "compilation_cache_dir",
    "data_dir",
    "workdir",
    "init_from",
    "gin_file",
    "gin_param",
)


def define_process_flags(values: flags.FlagValues) -> None:
    """Adds --coordinator, --num_processes, --process_id, and what goes with them."""
    here = {"flag_values": values}
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, for a run of several processes. Not needed on Cloud TPUs, under SLURM or Open MPI, and"
        " in Kubernetes jobs: there they find each other.",
        **here,
    )
    flags.DEFINE_integer("num_processes", None, "Processes of the run, with --coordinator.", **here)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0, with --coordinator.", **here)
    flags.DEFINE_list("local_device_ids", None, "The GPUs of this process, such as 0,1; all by default.", **here)
    limits = {"lower_bound": 1, "upper_bound": _LONGEST_TIMEOUT}
    flags.DEFINE_integer(
        "coordinator_timeout", COORDINATOR_TIMEOUT, "Seconds to wait for the other processes.", **limits, **here
    )
    flags.DEFINE_integer(
        "heartbeat_timeout",
        HEARTBEAT_TIMEOUT,
        "Seconds after which a silent process is lost; the others end.",
        **limits,
        **here,
    )

    def check(_: object) -> bool:
        check_arguments(values.coordinator, values.num_processes, values.process_id)
        devices = values.local_device_ids
        if devices is not None and not all(device.isascii() and device.isdecimal() for device in devices):
            raise UserError(f"--local_device_ids={','.join(devices)}: must be numbers, such as 0,1")
        return True

    # Before a folder is made for the run.
    flags.register_validator("coordinator", check, flag_values=values)
    only_where(
        values,
        ["local_device_ids"],
        lambda given: given.coordinator or find_cluster(os.environ),
        "is for one of several processes, and this one is alone: leave it out, or give --coordinator",
    )


def start_processes_from_flags(values: flags.FlagValues) -> None:
    """Meets the other processes of the run, if there are any; to be called before JAX is imported."""
    devices = values.local_device_ids
    start_processes(
        values.coordinator,
        values.num_processes,
        values.process_id,
        local_device_ids=[int(device) for device in devices] if devices else None,
        coordinator_timeout=values.coordinator_timeout,
        heartbeat_timeout=values.heartbeat_timeout,
    )


def is_one_of_several(values: flags.FlagValues) -> bool:
    """Whether the flags, or the environment, say that the run has several processes."""
    if "num_processes" not in values or values.num_processes == 1:
        return False
    return bool(values.coordinator or find_cluster(os.environ))


def flags_to_agree_on(values: flags.FlagValues) -> dict[str, object]:
    """The flags that all processes must be given alike, by name."""
    return {f"--{name}": values[name].value for name in values if name not in (*OF_ONE_PROCESS, "help", "h")}
