#!/usr/bin/env bash
# Unpacks Debian's Prometheus, promtool and Alertmanager into a folder, without installing anything: the versions of
# bookworm (2.42) and of forky (3.5), with which tests/deploy runs. scripts/prometheus.sh [FOLDER]
set -euo pipefail
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/peregrine/prometheus}
mirror=$(sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb (\[[^]]*\] )?([^ ]+).*/\2/p' \
    /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | head -1 || true)
if [ -z "$mirror" ]; then
    echo "no Debian mirror in /etc/apt: unpack Prometheus into $folder/bookworm and $folder/forky by hand" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$folder"

get() { # of a suite: its own lists, and nothing of the host's but its mirror
    apt-get -qq -o Dir::Etc::sourcelist="$work/$suite.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
        -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}

for suite in bookworm forky; do
    if [ -x "$folder/$suite/usr/bin/promtool" ]; then continue; fi
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/$suite.list"
    packages=(prometheus prometheus-alertmanager)
    if [ "$suite" = forky ]; then packages+=(promtool); fi
    mkdir "$work/$suite"
    get update
    (cd "$work/$suite" && get download "${packages[@]}" && for package in *.deb; do dpkg -x "$package" root; done)
    rm -rf "${folder:?}/$suite"
    mv "$work/$suite/root" "$folder/$suite"
done
