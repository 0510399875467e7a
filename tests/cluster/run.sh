#!/usr/bin/env bash
# A plan for Kubernetes, and the workflow on a real Slurm of two nodes on this machine, with jobs that are killed, run out of time
# and memory, and lose their node:   bash tests/cluster/run.sh [arguments of pytest]
# Needs root, Debian's packages and the set-up of `make test`. Exit status 0 with a sentence where they cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/arena-cje-slurm-XXXXXX")
chmod 755 "$FOLDER"
trap 'bash tests/cluster/slurm.sh down "$FOLDER/slurm"; rm -rf "$FOLDER"' EXIT
# Beside the environment of the other tests, whose packages it sees: every installed plugin is imported at each start of Snakemake.
.venv/bin/python -m venv "$FOLDER/kubernetes"
.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    > "$("$FOLDER/kubernetes/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/environment.pth"
if "$FOLDER/kubernetes/bin/python" -m pip install --quiet --disable-pip-version-check \
    snakemake-executor-plugin-kubernetes snakemake-storage-plugin-s3; then
    ARENA_KUBERNETES_PYTHON=$FOLDER/kubernetes/bin/python .venv/bin/python -m pytest -q tests/cluster/test_profiles.py
else
    echo "Kubernetes is not planned for: pip cannot install its plugins"
fi
STATUS=0
bash tests/cluster/slurm.sh up "$FOLDER/slurm" || STATUS=$?
if [ "$STATUS" = 3 ]; then
    echo "Slurm is not tested: see above"
    exit 0
fi
[ "$STATUS" = 0 ] || exit "$STATUS"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$FOLDER/plugins" \
    snakemake-executor-plugin-slurm snakemake-executor-plugin-slurm-jobstep throttler pandas || {
    echo "Slurm is not tested: pip cannot install its executor plugin"
    exit 0
}
eval "$(bash tests/cluster/slurm.sh env "$FOLDER/slurm")"
ARENA_SLURM_PLUGINS=$FOLDER/plugins .venv/bin/python -m pytest -q -s tests/cluster/test_slurm.py "$@"
