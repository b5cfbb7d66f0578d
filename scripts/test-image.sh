#!/usr/bin/env bash
# Builds the Dockerfile with buildah and tries what comes out. Needs no registry of images: the builder's image is made here, of
# Debian packages and this machine's own Rust toolchain and downloaded crates.
#   scripts/test-image.sh [PROFILE]     release (minutes) or dev
# Needs root and Debian's buildah and mmdebstrap; says so and is skipped where they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PROFILE=${1:-release} LIMIT=$((30 * 1024 * 1024))
readonly BASE=localhost/daisi-cdc-consumer-builder IMAGE=localhost/daisi-cdc-consumer:test

say() { printf 'image: %s\n' "$*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

[ "$(id -u)" -eq 0 ] || { say "SKIPPED: not root"; exit; }
for program in buildah mmdebstrap; do
    command -v "$program" >/dev/null || { say "SKIPPED: $program is missing (Debian: apt-get install buildah mmdebstrap)"; exit; }
done

readonly WORK=$(mktemp -d)
container=
cleanup() {
    [ -z "$container" ] || buildah rm "$container" >/dev/null || true
    rm -rf "$WORK"
}
trap cleanup EXIT

# The processes of a build run in a chroot: containers of their own are more than some machines allow.
export BUILDAH_ISOLATION=chroot
readonly TOOLCHAIN=$(rustc --print sysroot)
readonly REGISTRY=${CARGO_HOME:-$HOME/.cargo}/registry

if ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
    say "making the builder's image"
    # The machine's own sources, whatever mirror they name.
    mmdebstrap --quiet --variant=essential --include=gcc,libc6-dev,make,ca-certificates bookworm "$WORK/root.tar" \
        $(ls /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null)
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$WORK/root.tar" / >/dev/null
    buildah config --env PATH=/usr/local/rust/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env CARGO_HOME=/usr/local/cargo \
        --env CARGO_NET_OFFLINE=true "$container"
    buildah commit --quiet "$container" "$BASE" >/dev/null
    buildah rm "$container" >/dev/null
    container=
fi

cargo fetch --locked --quiet
say "building ($PROFILE)"
# The format of Docker: OCI's has no health check. Configuration of cargo (a mirror, say) belongs to where the crates came from.
volumes=(--volume "$TOOLCHAIN:/usr/local/rust:ro" --volume "$REGISTRY:/usr/local/cargo/registry")
[ ! -e "${REGISTRY%/registry}/config.toml" ] || volumes+=(--volume "${REGISTRY%/registry}/config.toml:/usr/local/cargo/config.toml:ro")
buildah bud --quiet --layers --format docker "${volumes[@]}" --build-arg RUST_IMAGE="$BASE" --build-arg PROFILE="$PROFILE" \
    --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" -t "$IMAGE" . >/dev/null

config=$(buildah inspect --type image "$IMAGE")
has() { grep -qF -- "$1" <<<"$config" || fail "the image's configuration has no $1"; }
has '"User": "65532:65532"'
has '"healthcheck"'
for label in title description licenses version revision; do has "\"org.opencontainers.image.$label\""; done

container=$(buildah from "$IMAGE")
root=$(buildah mount "$container")
size=$(du -sb "$root" | cut -f1)
say "$(awk "BEGIN { printf \"%.1f MiB\", $size / 1048576 }"), of it the program $(awk "BEGIN { printf \"%.1f MiB\", $(stat -c %s "$root/usr/bin/daisi-cdc-consumer") / 1048576 }")"
[ "$PROFILE" != release ] || [ "$size" -le "$LIMIT" ] || fail "more than 30 MiB"
! find "$root" -path '*/bin/*' -type f ! -name daisi-cdc-consumer | grep . || fail "there are other programs in it"
! find "$root" -perm /6000 | grep . || fail "set-uid files"

run() {
    buildah run --isolation chroot --user 65532:65532 --env DAISI_CDC_START_TIMEOUT=1s --env DAISI_CDC_NATS__URL=nats://localhost:1 \
        "$container" -- /usr/bin/daisi-cdc-consumer "$@" >"$WORK/said" 2>&1
}
ends() { # STATUS WORDS ARGUMENTS...
    local status=0 expected=$1 words=$2
    shift 2
    run "$@" || status=$?
    [ "$status" -eq "$expected" ] && grep -q "$words" "$WORK/said" || fail "$*: status $status: $(cat "$WORK/said")"
}
ends 0 'daisi-cdc-consumer ' --version
ends 0 'configuration: valid' check --offline
ends 1 'not alive' healthcheck
# It looks up a name and finds nobody there: all that it is linked to is in the image.
ends 69 'could not start' run
say "ok"
