#!/usr/bin/env bash
# Pretrains on one device, to the end. --help says more.
set -euo pipefail
# shellcheck source=test/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch pretrain acc 1 "$@"
