#!/usr/bin/env bash
# The workflow on a real Slurm of two nodes on this machine, with jobs that are killed, run out of time and memory, and lose their
# node:   bash tests/cluster/run.sh [arguments of pytest]
# Needs root, Debian's packages and the set-up of `make test`. Exit status 0 with a sentence where they cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/arena-cje-slurm-XXXXXX")
chmod 755 "$FOLDER"
trap 'bash tests/cluster/slurm.sh down "$FOLDER/slurm"; rm -rf "$FOLDER"' EXIT
STATUS=0
bash tests/cluster/slurm.sh up "$FOLDER/slurm" || STATUS=$?
if [ "$STATUS" = 3 ]; then
    echo "Slurm is not tested: see above"
    exit 0
fi
[ "$STATUS" = 0 ] || exit "$STATUS"
# Beside the environment of the other tests: every installed plugin is imported at each start of Snakemake.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$FOLDER/plugins" \
    snakemake-executor-plugin-slurm snakemake-executor-plugin-slurm-jobstep throttler pandas || {
    echo "Slurm is not tested: pip cannot install its executor plugin"
    exit 0
}
eval "$(bash tests/cluster/slurm.sh env "$FOLDER/slurm")"
ARENA_SLURM_PLUGINS=$FOLDER/plugins .venv/bin/python -m pytest -q tests/cluster "$@"
