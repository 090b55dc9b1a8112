#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU slice until the run is complete. Runs on your own machine, best inside tmux:
#
#   PROJECT=my-project ZONE=us-east5-a ACCELERATOR=v5litepod-256 SHARE=10.0.0.2:/runs launch/kit/tpu_pod.sh \
#       --gin_file=gin_configs/pretrain/bert_base.gin --workdir=/mnt/runs/bert_base \
#       --data_dir=gs://my-bucket/rows_128 --data_dir=gs://my-bucket/rows_512
#
# It makes the slice where there is none, copies this working tree to each worker, installs it, and starts
# `python -m launch.pretrain` there with the flags that it was given. When the slice is preempted or taken for
# maintenance, or a worker is lost, it makes the slice ready again and starts the same command, which resumes.
# Ctrl-C asks the run to save and stop. The slice is left as it is, and is paid for until you delete it.
set -euo pipefail

PROJECT=${PROJECT:?the Google Cloud project}
ZONE=${ZONE:?a zone that has this kind of TPU}
TPU=${TPU:-bert-jax}                      # the slice's name
ACCELERATOR=${ACCELERATOR:-v5litepod-16}  # its kind and size
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}   # its software version, which goes with the kind
CREATE_FLAGS=${CREATE_FLAGS:-}            # more flags of `gcloud compute tpus tpu-vm create`, such as --spot
SHARE=${SHARE:-}                          # an NFS share that all workers mount at /mnt/runs, for --workdir
MAX_FAILURES=${MAX_FAILURES:-100}         # ends in a row that were no preemption, before it gives up
WAIT=${WAIT:-60}                          # seconds between two attempts
# What installs the package into .venv, within the working tree's copy on each worker.
SETUP=${SETUP:-"python3 -m pip install --quiet --user uv \
    && python3 -m uv venv --quiet --allow-existing --python 3.11 .venv \
    && python3 -m uv pip install --quiet --python .venv/bin/python -c constraints.txt -e '.[tpu]'"}

root=$(cd "$(dirname "$0")/../.." && pwd)
archive=$(mktemp)

tpu() { gcloud compute tpus tpu-vm "$@" --project="$PROJECT" --zone="$ZONE" --quiet; }
# A machine that is taken away closes no connection: it is given up after one and a half minutes of silence.
on_workers() { tpu ssh "$TPU" --worker="$1" --command="$2" --ssh-flag="-o ServerAliveInterval=30"; }
say() { echo "tpu_pod: $*" >&2; }

# What a connection that was lost has left running saves and ends before anything new begins.
stop_training() {
    # shellcheck disable=SC2016 # for the workers' shells
    on_workers all 'training() { grep -qs launch.pretrain "/proc/$(cat bert_jax.pid 2>/dev/null)/cmdline"; }
        for _ in $(seq 600); do training || break; kill -TERM "$(cat bert_jax.pid)"; sleep 1; done
        if training; then kill -KILL "$(cat bert_jax.pid)"; fi'
}

make_ready() {
    local state
    while true; do
        state=$(tpu describe "$TPU" --format='value(state)' 2>/dev/null || echo MISSING)
        if [[ $state == READY ]]; then return; fi
        # It was taken, which is no failure of the run.
        failures=0
        case $state in
            MISSING)
                say "making $TPU ($ACCELERATOR)"
                # shellcheck disable=SC2086 # several flags
                tpu create "$TPU" --accelerator-type="$ACCELERATOR" --version="$RUNTIME" $CREATE_FLAGS && continue
                ;;
            PREEMPTED | TERMINATED | STOPPED)
                say "$TPU is $state: deleting it, to make it anew"
                tpu delete "$TPU" && continue
                ;;
        esac
        say "$TPU is $state: waiting"
        sleep "$WAIT"
    done
}

install() {
    stop_training &&
        tar -C "$root" --exclude='./.*' --exclude=./runs --exclude=__pycache__ -czf "$archive" . &&
        tpu scp "$archive" "$TPU:bert_jax.tar.gz" --worker=all &&
        on_workers all "rm -f bert_jax.code && mkdir -p bert_jax && tar -xzf bert_jax.tar.gz -C bert_jax \
            && cd bert_jax && $SETUP" &&
        { [[ -z $SHARE ]] || on_workers all "mountpoint -q /mnt/runs || { sudo apt-get install -qq nfs-common \
            && sudo mkdir -p /mnt/runs && sudo mount -t nfs $SHARE /mnt/runs && sudo chmod 777 /mnt/runs; }"; }
}

train() {
    # It goes on without the connection; the log comes over it.
    on_workers all "cd bert_jax
        nohup .venv/bin/python -m launch.pretrain $(printf '%q ' "$@") >../bert_jax.log 2>&1 </dev/null &
        echo \$! >../bert_jax.pid; tail -n +1 -f --pid=\$! ../bert_jax.log
        wait \$!; echo \$? >../bert_jax.code" || true
    # gcloud's own exit code does not tell ends apart. All processes of a run end with the same one, unless some were
    # lost, or never began: the others may say then that they waited for them in vain, which is no wrong command.
    code=$(on_workers all 'cat bert_jax.code' | sort -u) || code=lost
    [[ $code =~ ^[0-9]+$ ]] || code=lost
}

trap 'rm -f "$archive"' EXIT
trap 'say "stopping"; stop_training || true; exit 130' INT TERM
failures=0
while true; do
    make_ready
    code=lost
    if install; then train "$@"; fi
    case $code in
        0)
            say "complete; this ends the costs: gcloud compute tpus tpu-vm delete $TPU --project=$PROJECT --zone=$ZONE"
            exit 0
            ;;
        2)
            say "the command is wrong, see above"
            exit 2
            ;;
        143) say "stopped by the machine, and saved" ;;
        *)
            failures=$((failures + 1))
            say "ended with code $code (failure $failures of at most $MAX_FAILURES)"
            ((failures < MAX_FAILURES)) || exit 1
            ;;
    esac
    sleep "$WAIT"
done
