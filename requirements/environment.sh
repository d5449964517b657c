#!/bin/bash
# Creates the environments that the Makefile names; complete ones are kept:
#   requirements/environment.sh .venv        Python 3.7 and the pins of constraints.txt
#   requirements/environment.sh .venv-NAME   the pins of requirements/NAME.txt
#   requirements/environment.sh python       prints the Python from which .venv would be created
#   requirements/environment.sh aarch64      prints the pins of .venv on aarch64, where the index has no TensorFlow 1.15
set -e
shopt -s nullglob
versions="${PYENV_ROOT:-$HOME/.pyenv}/versions"

# Of the Pythons given, the first that runs and, with WANTED, is of that version.
first_python() {
    local python
    for python in "$@"; do
        case "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" in
            ${WANTED:-?*}) echo "$python"; return ;;
        esac
    done
    return 1
}

python_of_venv() {
    WANTED=3.7 first_python python3.7 python3 python "$versions"/3.7.*/bin/python "$(uv python find 3.7 2>/dev/null)" \
            "$(conda run -n py37 which python 2>/dev/null)" || {
        echo "Python 3.7 is needed (TensorFlow 1.15 runs on nothing newer) and was not found on PATH, in pyenv, uv or conda."
        echo "Get it by one of:  pyenv install 3.7.16   |   uv python install 3.7   |   conda create -n py37 python=3.7"
        exit 1
    } >&2
}

# pip_of FOLDER ARGUMENTS: installs into that environment.
pip_of() {
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}

# The pins of constraints.txt without TensorFlow, which the host must have, and with others for those without a wheel.
pins_of_aarch64() {
    local names
    names=$(sed -n 's/==.*//p' requirements/aarch64.txt | paste -sd '|')
    grep -vE "^(tensorflow|$names)==" constraints.txt
    cat requirements/aarch64.txt
}

# fill_as_aarch64 FOLDER: installs these pins, which are all dependencies of each other, and checks that they agree.
# TensorFlow's metadata asks for an older NumPy and an older h5py, which only Keras needs; it works with these.
fill_as_aarch64() {
    local complaints
    pins_of_aarch64 > "$1/pins.txt"
    pip_of "$1" --no-deps -r "$1/pins.txt"
    pip_of "$1" --no-deps --no-build-isolation -e .
    complaints=$("$1/bin/python" -m pip check \
        | grep -iE "^(chinese-albert|tensorflow|$(sed 's/==.*//' "$1/pins.txt" | paste -sd '|')) " \
        | grep -vE "^tensorflow(-cpu)? \S+ has requirement (numpy|h5py)[<>=]" \
        | grep -vE "requires tensorflow, which is not installed" || true)
    [[ -z $complaints ]] || { echo "$complaints" >&2; return 1; }
}

# An environment that sees the host's packages uses the host's TensorFlow.
say_what_the_host_must_bring() {
    local package
    for package in tensorflow npu_bridge; do
        if "$1/bin/python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$package') is None)"; then
            echo "  $package: found"
        else
            echo "  $package: NOT FOUND: install it into $(readlink -f "$1/bin/python"); see docs/ascend.md"
        fi
    done
}

# The stamp is written last and records what the environment was created from, so one that was interrupted, or created
# from other pins or in another folder, is created again.
make_venv() {
    local wanted python
    wanted="$(cat constraints.txt setup.py requirements.txt requirements/aarch64.txt | cksum) $PWD"
    [[ "$(cat .venv/complete 2>/dev/null)" == "$wanted" ]] && return
    python="$(python_of_venv)"
    echo "Setting up .venv with $python"
    rm -rf .venv
    if [[ "$(uname -m)" == aarch64 ]]; then
        "$python" -m venv --system-site-packages .venv
        fill_as_aarch64 .venv
        echo "For aarch64 the package index has no TensorFlow 1.15; the host must bring it, and CANN's adapter for it:"
        say_what_the_host_must_bring .venv
        echo "$wanted" > .venv/complete
        return
    fi
    "$python" -m venv .venv
    pip_of .venv -r requirements.txt
    pip_of .venv --no-deps --no-build-isolation -e .
    .venv/bin/python -m pip check
    echo "$wanted" > .venv/complete
}

# apache-flink-libraries contains Flink and much that is not needed here.
make_other() {
    local candidates options=()
    case "$1" in
        lint) candidates=(.venv/bin/python) ;;
        flink) candidates=(.venv/bin/python) options=(--no-deps) ;;
        aarch64|tf2onnx) candidates=(.venv/bin/python) ;;
        transformers5) candidates=(python3.12 python3.11 python3.10 "$versions"/3.{12,11,10}.*/bin/python) ;;
        schemathesis) candidates=(python3) ;;
        *) candidates=(python3.10 python3.9 python3.8 "$versions"/3.{10,9,8}.*/bin/python) ;;
    esac
    local python
    python="$(first_python "${candidates[@]}")" || { echo ".venv-$1 needs one of: ${candidates[*]}" >&2; exit 1; }
    rm -rf ".venv-$1"
    "$python" -m venv ".venv-$1"
    if [[ $1 == aarch64 ]]; then               # its pins on this machine, to see that they run
        pip_of .venv-aarch64 --no-deps "$(grep '^tensorflow==' constraints.txt)"
        fill_as_aarch64 .venv-aarch64
    else
        pip_of ".venv-$1" "${options[@]}" -r "requirements/$1.txt"
    fi
    touch ".venv-$1/complete"
}

case "$1" in
    python) python_of_venv ;;
    aarch64) pins_of_aarch64 ;;
    .venv) make_venv ;;
    .venv-*) make_other "${1#.venv-}" ;;
esac
