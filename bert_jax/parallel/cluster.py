"""Whether this process is one of several that a cluster has started, told by its environment. Imports no JAX.

`jax.distributed.initialize()` finds the other processes by itself on Cloud TPUs, under SLURM and Open MPI and in
Kubernetes jobs, but elsewhere it fails, and on a lone machine it may ask for a metadata server that never answers. So
it is called only where these signs are there.
"""

import importlib.util
import pathlib
from collections.abc import Callable, Mapping

_METADATA_SECONDS = 2.0
_ATTRIBUTES = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
# What SLURM must have set for JAX to use it, as of jax 0.10.
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


def find_cluster(
    environment: Mapping[str, str], read_attribute: Callable[[str], str | None] | None = None
) -> str | None:
    """Returns what started this process together with others, or None where it is alone.

    Args:
        environment: the process's variables.
        read_attribute: asks a Cloud TPU machine's metadata server for an attribute; None where there is none. By
            default it is asked only where the machine has TPUs.
    """
    if environment.get("JAX_COORDINATOR_ADDRESS"):
        return "JAX_COORDINATOR_ADDRESS"
    if all(name in environment for name in _SLURM) and _count(environment, "SLURM_NTASKS") > 1:
        return "SLURM"
    if "OMPI_MCA_orte_hnp_uri" in environment and _count(environment, "OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if _tpu_workers(environment) > 1 or _count(environment, "MEGASCALE_NUM_SLICES") > 1:
        return "Cloud TPU"
    in_indexed_job = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    if in_indexed_job and importlib.util.find_spec("kubernetes"):
        return "Kubernetes"
    if "TPU_WORKER_HOSTNAMES" in environment or "TPU_SKIP_MDS_QUERY" in environment:
        # The variables have said it all; a notebook's TPU has no metadata server.
        return None
    if read_attribute is None:
        read_attribute = _read_attribute if _has_tpus() else lambda name: None
    workers = (read_attribute("worker-network-endpoints") or "").split(",")
    several_slices = "MEGASCALE_NUM_SLICES" in (read_attribute("tpu-env") or "")
    return "Cloud TPU" if len(workers) > 1 or several_slices else None


def _count(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else 0


def _tpu_workers(environment: Mapping[str, str]) -> int:
    names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES") or ""
    return len([name for name in names.split(",") if name])


def _has_tpus() -> bool:
    devices = pathlib.Path("/dev")
    return any(devices.glob("accel[0-9]*")) or any((devices / "vfio").glob("[0-9]*"))


def _read_attribute(name: str) -> str | None:
    import urllib.request

    request = urllib.request.Request(_ATTRIBUTES + name, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=_METADATA_SECONDS) as answer:
            return answer.read().decode()
    except OSError:
        return None
