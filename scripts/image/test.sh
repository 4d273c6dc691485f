#!/usr/bin/env bash
# Builds both images on a base that is made here, and runs what tests/image says of them: `make test-image`.
#
# Needs Debian and root: buildah, podman and runc are installed where they are missing. Where containers cannot run it
# says so and ends with 0. KEEP=1 keeps the images for a second run, which then takes half the time.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/image/local.sh

skip() { echo "make test-image: THE IMAGE WAS NOT TESTED: $1"; exit 0; }

[ "$(id -u)" = 0 ] || skip "containers are built and run as root here, and this user is not"
command -v apt-get >/dev/null || skip "the base image is made with Debian's tools, and there is no apt-get"
install_tools || skip "buildah, podman, runc and debootstrap are not here and could not be installed"
has_torch || skip "pip has no folder of wheels with torch for CPUs, and its index does not answer"
can_mount || skip "this machine lets nobody mount a file system or make a namespace"

mkdir -p "$WORK"
trap clean EXIT
choose_storage
step "linters" install_linters
.image/tools/bin/hadolint Dockerfile
step "base" make_base || true
has_base || skip "Debian's base could not be made: see .image/debootstrap.log"
can_run || skip "this machine runs no container"
step "cpu" build cpu
# What the target needs besides torch's CUDA libraries, which are gigabytes: one model's kernels for one architecture.
step "cuda" build cuda --build-arg KERNEL_ARCHITECTURES=80 --build-arg KERNEL_MODELS=falcon-rw-1b
step "bill of materials" write_sbom cpu
PEREGRINE_IMAGE_ENGINE="podman ${STORE[*]}" step "tests" \
    "${PYTHON:-.venv/bin/python}" -m pytest tests/image -q -s "$@"
