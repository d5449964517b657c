#!/usr/bin/env bash
# Fine-tunes on LCQMC on one device for one epoch. --help says more.
set -euo pipefail
# shellcheck source=test/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch finetune perf 1 "$@"
