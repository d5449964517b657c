#!/usr/bin/env bash
# Fine-tunes on LCQMC on all devices of this host, to the end. --help says more.
set -euo pipefail
# shellcheck source=test/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch finetune acc many "$@"
