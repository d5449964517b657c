#!/usr/bin/env bash
# Pretrains on one device for as long as it takes to know its pace. --help says more.
set -euo pipefail
# shellcheck source=test/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch pretrain perf 1 "$@"
