#!/usr/bin/env bash
# Prints the version, which stands in pyproject.toml alone: wheel, chart and images have it from there.
set -euo pipefail
sed -nE 's/^version = "(.*)"/\1/p' "$(dirname "$0")/../pyproject.toml"
