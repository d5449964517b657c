# What the launchers share; to be sourced. Starts the trainer on one device or several, watches it, and leaves log and
# results where the model zoo's tooling looks for them:
#
#   test/output/$ASCEND_DEVICE_ID/train_$ASCEND_DEVICE_ID.log    all that the trainer says
#   test/output/$ASCEND_DEVICE_ID/train_${CaseName}_loss.txt     the losses, one a line
#   test/output/$ASCEND_DEVICE_ID/${CaseName}.log                the results; test/train_results.py says what they mean

LAUNCHER=$(basename "$0")
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
STOP_SECONDS=${STOP_SECONDS:-120}              # how long a trainer may take to save its checkpoint before it is killed

PYTHON=$ROOT/.venv/bin/python
[[ -x $PYTHON ]] || PYTHON=python3             # of an Ascend host, with a TensorFlow of its own
"$PYTHON" -c 'import numpy' 2>/dev/null || {
    echo "$LAUNCHER: error: neither .venv nor a python3 with TensorFlow: run make venv, or see docs/ascend.md" >&2
    exit 2
}
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"   # so that paths in flags mean what they mean where the user is

# ---------------------------------------------------------------- settings: the published port's

# The zoo's names of its two entries, whatever config is trained.
network() {
    case $1 in
        pretrain) echo albert_xlarge_zh_ID2348_for_TensorFlow ;;
        finetune) echo albert_xlarge_zh_ID2355_for_TensorFlow ;;
    esac
}

# Flags of a stage and a kind of run, where they are not the trainer's own defaults. (Its learning rate for pretraining
# and its 3 epochs of 32 examples x 128 tokens are the port's.) There is no --num_warmup_steps: the trainer warms up for
# one step in 40, while the port's 12,500 were longer than its run.
settings() {
    case $1 in
        pretrain) printf -- '--albert_config_file=xlarge --train_batch_size=4 ' ;;
        finetune) printf -- '--task_name=lcqmc ' ;;
    esac
    case $1-$2 in
        pretrain-perf) echo --num_train_steps=100 --log_steps=10 --do_eval=false ;;
        pretrain-acc) echo --num_train_steps=4000 ;;
        finetune-perf) echo --learning_rate=5e-6 --num_train_epochs=1 ;;
        finetune-acc) echo --learning_rate=1e-6 ;;
    esac
}

# ---------------------------------------------------------------- arguments

die() {
    printf '%s: error: %s\n' "$LAUNCHER" "$1" >&2
    exit "${2:-2}"
}

usage() {
    echo "usage: $LAUNCHER --data_path=DIR [--ckpt_path=DIR] [--] [flags of python -m estimator.$STAGE]"
    echo
    if [[ $STAGE == pretrain ]]; then
        echo "  --data_path   a folder of etl.build_pretrain, or one that holds tf*.tfrecord of 512 tokens and 51 predictions;"
        echo "                then vocab.txt is taken from there or --ckpt_path, in this order, and records held out from"
        echo "                eval/tf*.tfrecord"
        echo "  --ckpt_path   a folder that holds albert_model.ckpt, to start from; without it from random values"
    else
        echo "  --data_path   a folder that holds train.tsv and dev.tsv: text_a, text_b and label, separated by tabs"
        echo "  --ckpt_path   a folder that holds albert_model.ckpt and vocab.txt, or a folder of estimator.pretrain, which says its"
        echo "                config itself"
    fi
    echo
    echo "Any flag of the trainer, as --flag=value or --flag value, overrides what is set here:"
    echo "  $(settings "$STAGE" "$KIND")"
    if [[ $RANKS != 1 ]]; then
        echo "RANK_TABLE_FILE must name the table of the devices; RANK_SIZE of them (default 8) are on this host, from 0 on."
        echo "They share the folder of the checkpoints, which rank 0 writes. When one fails, all are stopped."
    fi
    echo "Log, losses and results: test/output/\$ASCEND_DEVICE_ID/. SIGTERM and Ctrl-C save a checkpoint first."
    if [[ $KIND == acc ]]; then
        echo "The same command goes on with a run that was cut off."
    else
        echo "Each run starts anew, unless it is given an --output_dir."
    fi
}

# Sets DATA_PATH, CKPT_PATH and FLAGS, the trainer's, which begin with the settings.
parse_arguments() {
    local name value
    DATA_PATH='' CKPT_PATH=''
    read -ra FLAGS <<< "$(settings "$STAGE" "$KIND")"
    while (( $# )); do
        case $1 in
            -h | --help) usage; exit 0 ;;
            --data_path | --ckpt_path | --data_path=* | --ckpt_path=*)
                name=${1%%=*}
                if [[ $1 == *=* ]]; then
                    value=${1#*=}
                else
                    (( $# > 1 )) || die "$name wants a folder (see --help)"
                    value=$2
                    shift
                fi
                [[ -n $value ]] || die "$name is empty (see --help)"
                [[ -d $value ]] || die "$name: $value: no such folder"
                if [[ $name == --data_path ]]; then DATA_PATH=${value%/}; else CKPT_PATH=${value%/}; fi
                shift ;;
            --) shift ;;
            --input_file | --input_file=* | --data_dir | --data_dir=*) die "${1%%=*}: give --data_path (see --help)" ;;
            --?*)
                FLAGS+=("$1")
                shift
                while (( $# )) && [[ $1 != --* ]]; do   # the flag's values
                    [[ ${FLAGS[${#FLAGS[@]} - 1]} != --*=* ]] || die "unknown argument: $1 (see --help)"
                    FLAGS+=("$1")
                    shift
                done ;;
            *) die "unknown argument: $1 (see --help)" ;;
        esac
    done
    [[ -n $DATA_PATH ]] || die "--data_path must name the folder of the data (see --help)"
}

# The last value of a trainer's flag, which is the one that the trainer takes; nothing without one.
value_of() {
    local argument value='' previous=''
    for argument in "${FLAGS[@]}"; do
        case $argument in
            "--$1="*) value=${argument#*=} ;;
            *) if [[ $previous == "--$1" ]]; then value=$argument; fi ;;
        esac
        previous=$argument
    done
    printf '%s' "$value"
}

# npu or cpu: what the trainer will choose.
backend() {
    local asked
    asked=$(value_of backend)
    if [[ ${asked:-auto} == auto ]]; then
        "$PYTHON" -c 'from estimator.npu import devices; print(devices.choose_backend(devices.AUTO)[0])'
    else
        echo "$asked"
    fi
}

holds() {                                      # a folder, files that match a glob
    compgen -G "$1/$2" > /dev/null
}

# Puts flags behind the settings and before the user's, which win.
add_flags() {
    local settings
    read -ra settings <<< "$(settings "$STAGE" "$KIND")"
    FLAGS=("${settings[@]}" "$@" "${FLAGS[@]:${#settings[@]}}")
}

# ---------------------------------------------------------------- what the trainer starts from and reads

add_pretraining_checkpoint() {
    [[ -n $CKPT_PATH ]] || return 0
    if [[ -f $CKPT_PATH/albert_model.ckpt.index ]]; then
        add_flags "--init_checkpoint=$CKPT_PATH/albert_model.ckpt"
    elif [[ -f $CKPT_PATH/model.json ]]; then
        add_flags "--init_checkpoint=$CKPT_PATH"
    else
        die "--ckpt_path: $CKPT_PATH: no albert_model.ckpt there"
    fi
}

add_pretraining_data() {
    if [[ -f $DATA_PATH/manifest.json ]]; then # it says lengths, vocabulary and which records are held out
        add_flags "--input_file=$DATA_PATH"
        return
    fi
    holds "$DATA_PATH" 'tf*.tfrecord' || die "--data_path: $DATA_PATH: no tf*.tfrecord there, and no manifest.json"
    add_vocabulary --data_path "$DATA_PATH" "$CKPT_PATH"
    add_flags "--input_file=$DATA_PATH/tf*.tfrecord" --max_seq_length=512 --max_predictions_per_seq=51
    if holds "$DATA_PATH" 'eval/tf*.tfrecord'; then
        add_flags "--eval_input_file=$DATA_PATH/eval/tf*.tfrecord"
    elif [[ $KIND == acc && -z $(value_of eval_input_file) ]]; then
        add_flags --do_eval=false
        echo "$LAUNCHER: no eval/tf*.tfrecord in $DATA_PATH: nothing is evaluated, and TrainAccuracy will be None"
    fi
}

# The first vocab.txt in the folders behind the flag's name. Another one of as many entries would train, and be wrong.
add_vocabulary() {
    local flag=$1 folder
    [[ -z $(value_of vocab_file) ]] || return 0
    for folder in "${@:2}"; do
        if [[ -n $folder && -f $folder/vocab.txt ]]; then
            add_flags "--vocab_file=$folder/vocab.txt"
            return
        fi
    done
    die "$flag: $2: no vocab.txt there: give --vocab_file, the one that it was made with"
}

add_labelled_data() {
    local part
    for part in train dev; do
        [[ -f $DATA_PATH/$part.tsv ]] || die "--data_path: $DATA_PATH: no $part.tsv there"
    done
    add_flags "--data_dir=$DATA_PATH"
}

add_pretrained_model() {
    [[ -n $CKPT_PATH ]] || die "--ckpt_path must name the folder of a pretrained model (see --help)"
    if [[ -f $CKPT_PATH/model.json ]]; then    # it says config and vocabulary
        add_flags "--init_checkpoint=$CKPT_PATH"
        return
    fi
    [[ -f $CKPT_PATH/albert_model.ckpt.index ]] || die "--ckpt_path: $CKPT_PATH: no albert_model.ckpt there"
    add_vocabulary --ckpt_path "$CKPT_PATH"
    add_flags "--init_checkpoint=$CKPT_PATH/albert_model.ckpt" --albert_config_file=xlarge
}

# ---------------------------------------------------------------- ranks: one trainer for each device

log_of() {                                     # of a device
    echo "$HERE/output/$1/train_$1.log"
}

# The folder of the checkpoints: all ranks read what rank 0 writes.
model_folder() {
    local given
    given=$(value_of output_dir)
    echo "${given:-$HERE/output/$(device_of 0)/model_${STAGE}_${RANKS}p_$KIND}"
}

device_of() {                                  # a rank
    # shellcheck disable=SC2031
    if [[ $RANKS == 1 ]]; then echo "$ASCEND_DEVICE_ID"; else echo "$1"; fi
}

# Several devices: checks what they need before anything starts.
prepare_ranks() {
    local reason="the devices exchange gradients through HCCL, which the CPU has not: use train_full_1p_pretrain.sh there"
    [[ $RANK_SIZE =~ ^[2-8]$ ]] || die "RANK_SIZE must be from 2 to 8, the devices of this host; got $RANK_SIZE"
    RANKS=$RANK_SIZE
    [[ $(value_of backend) != cpu ]] || die "--backend=cpu: $reason"
    [[ -n ${RANK_TABLE_FILE:-} ]] || die "RANK_TABLE_FILE must name the table of the devices: export RANK_TABLE_FILE=PATH"
    [[ -f $RANK_TABLE_FILE ]] || die "RANK_TABLE_FILE: $RANK_TABLE_FILE: no such file"
    RANK_TABLE_FILE=$(realpath "$RANK_TABLE_FILE")
    export RANK_TABLE_FILE
    [[ $(backend) == npu ]] || die "no Ascend device can be used here (npu_bridge is not installed): $reason"
    FLAGS+=(--backend=npu)                     # no rank may fall back to the CPU
}

start_rank() {
    local device log
    device=$(device_of "$1")
    log=$(log_of "$device")
    mkdir -p "$(dirname "$log")"
    (
        # shellcheck disable=SC2030
        export ASCEND_DEVICE_ID=$device
        if [[ $RANKS != 1 ]]; then export RANK_ID=$1; fi
        exec setsid "$PYTHON" -u -m "estimator.$STAGE" "${FLAGS[@]}" "--output_dir=$(model_folder)"
    ) > "$log" 2>&1 &                          # a process group of its own, so that what it starts can be ended, too
    PIDS[$1]=$!
    STATUS[$1]=running
    echo "$LAUNCHER: rank $1 on device $device: $log"
}

# Asks those that run to save a checkpoint and end; the second time, and after STOP_SECONDS, they are killed. (Ranks but
# the first wait to be killed: it needs them for the step that it saves.)
stop_ranks() {
    local rank
    if [[ -n $STOPPED_WITH ]]; then
        DEADLINE=$SECONDS
        return
    fi
    STOPPED_WITH=$1 DEADLINE=$(( SECONDS + STOP_SECONDS ))
    for (( rank = 0; rank < RANKS; rank++ )); do
        if [[ ${STATUS[rank]:-} == running ]]; then kill -TERM "${PIDS[rank]}" 2> /dev/null || true; fi
    done
}

kill_ranks() {                                 # and what they have started
    local rank
    for (( rank = 0; rank < RANKS; rank++ )); do
        if [[ -n ${PIDS[rank]:-} ]]; then kill -KILL -- "-${PIDS[rank]}" 2> /dev/null || true; fi
    done
}

# Waits until all ranks have ended. The first that fails stops the others; it is FAILED_RANK then.
watch_ranks() {
    local rank running=1 status
    while [[ -n $running ]]; do
        sleep 0.2
        running=
        for (( rank = 0; rank < RANKS; rank++ )); do
            [[ ${STATUS[rank]} == running ]] || continue
            if kill -0 "${PIDS[rank]}" 2> /dev/null; then
                running=1
                continue
            fi
            status=0
            wait "${PIDS[rank]}" || status=$?
            if [[ $status == 0 ]] && grep -q '^Stopped by SIGTERM' "$(log_of "$(device_of "$rank")")"; then
                status=143                     # not by us, perhaps; the training is not at its end
            fi
            STATUS[rank]=$status
            if [[ $status != 0 && -z $STOPPED_WITH ]]; then
                FAILED_RANK=$rank
                stop_ranks "$status"
            fi
        done
        if [[ -n $STOPPED_WITH && ${STATUS[0]} != running ]] || (( SECONDS >= DEADLINE )); then kill_ranks; fi
    done
    if [[ -n $STOPPED_WITH ]]; then kill_ranks; fi
    trap - EXIT
}

# Those of this case: losses and results.
remove_results() {
    local folder case
    folder=$(dirname "$(log_of "$(device_of 0)")")
    case="$(network "$STAGE")_bs"
    rm -f "$folder/train_$case"*"_${RANKS}p_${KIND}_loss.txt" "$folder/$case"*"_${RANKS}p_$KIND.log"
}

# Ends the launcher, without results, unless all ranks have come to their end.
report_failure() {
    [[ -n $STOPPED_WITH ]] || return 0
    remove_results
    local rank=${FAILED_RANK:-0} log who
    log=$(log_of "$(device_of "$rank")")
    if [[ -z $FAILED_RANK ]]; then
        die "stopped by a signal; the last line of $log: $(tail -n 1 "$log")" "$STOPPED_WITH"
    elif [[ $RANKS == 1 ]]; then
        die "the trainer ended with status $STOPPED_WITH; the last line of $log: $(tail -n 1 "$log")" "$STOPPED_WITH"
    fi
    who="rank $rank on device $(device_of "$rank")"
    printf '%s: the end of %s:\n' "$LAUNCHER" "$log" >&2
    tail -n 20 "$log" >&2
    die "$who ended with status $STOPPED_WITH, and the others were stopped" "$STOPPED_WITH"
}

# ---------------------------------------------------------------- a launch

# launch STAGE KIND RANKS ARGUMENTS...: pretrain or finetune; perf or acc; 1 or many.
launch() {
    STAGE=$1 KIND=$2 RANKS=$3
    shift 3
    parse_arguments "$@"
    if [[ $RANKS == 1 ]]; then
        export RANK_SIZE=1
        unset RANK_ID RANK_TABLE_FILE          # they would have npu_bridge wait for other devices
    else
        export RANK_SIZE="${RANK_SIZE:-8}"
    fi
    # shellcheck source=test/env.sh
    source "$HERE/env.sh"
    if [[ $STAGE == pretrain ]]; then
        add_pretraining_checkpoint
        add_pretraining_data
    else
        add_labelled_data
        add_pretrained_model
    fi
    if [[ $RANKS != 1 ]]; then
        prepare_ranks
    elif [[ $STAGE-$KIND == pretrain-perf && $(backend) == npu ]]; then
        add_flags --iterations_per_loop=10     # there are lines between calls alone; one call of 100 steps has no pace
    fi

    local rank log
    if [[ $KIND == perf ]]; then
        remove_results
        [[ -n $(value_of output_dir) ]] || rm -rf "$(model_folder)"
    fi
    PIDS=() STATUS=() STOPPED_WITH='' FAILED_RANK='' DEADLINE=$(( 1 << 60 ))
    SECONDS=0
    trap kill_ranks EXIT
    trap 'stop_ranks 129' HUP
    trap 'stop_ranks 130' INT
    trap 'stop_ranks 143' TERM
    for (( rank = 0; rank < RANKS; rank++ )); do
        if [[ -z $STOPPED_WITH ]]; then start_rank "$rank"; else STATUS[rank]=stopped; fi
    done
    watch_ranks 2> /dev/null                   # bash tells of each job that is killed
    report_failure

    log=$(log_of "$(device_of 0)")
    if grep -q '^Nothing to train: ' "$log" && holds "$(dirname "$log")" "$(network "$STAGE")_bs*_${RANKS}p_$KIND.log"; then
        echo "$LAUNCHER: this run was at its end already; its results stay. $(grep '^Nothing to train: ' "$log")"
        return
    fi
    "$PYTHON" "$HERE/train_results.py" --log "$log" --output_dir "$(model_folder)" \
        --network "$(network "$STAGE")" --kind "$KIND" --rank_size "$RANKS" --seconds "$SECONDS"
}
