#!/usr/bin/env bash
# Pins what `make install` installs, by version and hash, for every Python from 3.11 on: requirements/serve.txt for serving,
# requirements/dev.txt what development needs besides. Versions that are pinned stay: scripts/lock.sh --upgrade takes the
# newest, --upgrade-package NAME only one's. Needs uv (pip install uv).
#
# Left out is torch, with what its CUDA wheel alone requires: pyproject.toml pins its version, and hosts install different
# builds of it, for CUDA or for CPUs.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { # output, options
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --output-file "requirements/$1" "${@:2}" pyproject.toml
}

names() { sed -nE 's/^([A-Za-z0-9._-]+)==.*/\1/p' "$1"; }

whole=$(mktemp)
trap 'rm -f "$whole"' EXIT
uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --output-file "$whole" --extra dev \
    pyproject.toml
skipped=(--no-emit-package torch --no-emit-package triton)
for name in $(names "$whole" | grep -E '^(nvidia|cuda)-'); do skipped+=(--no-emit-package "$name"); done
compile serve.txt "${skipped[@]}" "$@"
for name in $(names requirements/serve.txt); do skipped+=(--no-emit-package "$name"); done
compile dev.txt --constraint requirements/serve.txt --extra dev "${skipped[@]}" "$@"
