#!/usr/bin/env bash
# Builds an image with the engine that is there: `make image`, or scripts/image/build.sh cpu --tag NAME ...
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-cuda}
version=$(scripts/version.sh)
for engine in docker podman buildah; do
    command -v "$engine" >/dev/null || continue
    set -x
    exec "$engine" build --target "$target" --tag "peregrine:$version-$target" \
        --label "org.opencontainers.image.version=$version" \
        --label "org.opencontainers.image.revision=$(git rev-parse HEAD)" \
        --label "org.opencontainers.image.created=$(git log -1 --format=%cI)" "${@:2}" .
done
echo "make image needs docker, podman or buildah: install one of them" >&2
exit 1
