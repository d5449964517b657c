# What the launchers share; to be sourced: finds a Python with TensorFlow, sets CANN's environment, and becomes
# test/zoo_launch.py, which does the rest; so a signal, or a kill, meets the launch itself.

# launch STAGE KIND RANKS ARGUMENTS...: pretrain or finetune; perf or acc; 1 or many.
launch() {
    local here root python name
    name=$(basename "$0")
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    root=$(dirname "$here")
    python=$root/.venv/bin/python
    [[ -x $python ]] || python=python3         # of an Ascend host, with a TensorFlow of its own
    "$python" -c 'import numpy' 2> /dev/null || {
        echo "$name: error: neither .venv nor a python3 with TensorFlow: run make venv, or see docs/ascend.md" >&2
        exit 2
    }
    if [[ $3 == 1 ]]; then
        export RANK_SIZE=1
        unset RANK_ID RANK_TABLE_FILE          # they would have npu_bridge wait for other devices
    else
        export RANK_SIZE="${RANK_SIZE:-8}"
    fi
    # shellcheck source=test/env.sh
    source "$here/env.sh"
    # so that paths in flags mean what they mean where the user is
    export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
    exec "$python" "$here/zoo_launch.py" "$name" "$@"
}
