#!/usr/bin/env bash
# Pins the clients that `make test-clients` installs, one file for each group that can share an environment:
# requirements/clients/GROUP.in -> GROUP.txt. Versions that are pinned stay, unless --upgrade or --upgrade-package NAME is
# given. Needs uv (pip install uv). What a CUDA build of torch requires is left to pip, as in scripts/lock.sh.
set -euo pipefail
cd "$(dirname "$0")/../requirements/clients"
for input in *.in; do
    output=${input%.in}.txt
    uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --output-file "$output" "$@" "$input"
    sed -i -E '/^(nvidia|cuda|triton)/d' "$output"
done
