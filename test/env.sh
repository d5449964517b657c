# The environment of a training on Ascend; to be sourced. Where CANN is not installed, it sets three variables, which
# nothing reads. What is set already stays.

# CANN's scripts come with every release and know its paths; they are not written for strict shells.
_source_leniently() {
    local before=$-
    set +eu
    # shellcheck disable=SC1090
    source "$1"
    case $before in *e*) set -e ;; esac
    case $before in *u*) set -u ;; esac
}

# The toolkit, wherever it is, then TensorFlow's adapter, which older releases keep beside it.
for _script in "${ASCEND_TOOLKIT_HOME:-}"/set_env.sh "${ASCEND_TOOLKIT_HOME:-}"/../set_env.sh \
        /usr/local/Ascend/{ascend-toolkit,cann,nnae}/set_env.sh; do
    if [ -f "$_script" ]; then
        _source_leniently "$_script"
        break
    fi
done
if [ -f /usr/local/Ascend/tfplugin/set_env.sh ]; then
    _source_leniently /usr/local/Ascend/tfplugin/set_env.sh
fi
unset _script
unset -f _source_leniently

export JOB_ID="${JOB_ID:-10087}"               # npu_bridge demands one; any number will do
export ASCEND_DEVICE_ID="${ASCEND_DEVICE_ID:-0}"
export RANK_SIZE="${RANK_SIZE:-1}"
