#!/usr/bin/env bash
# Makes a release in target/dist: a tarball (program, config.yaml, systemd unit, completions for shells, documents, examples/, k8s/ and deploy/),
# an SBOM (CycloneDX), and the SHA-256 of both. The program lists its dependencies within itself (cargo-auditable).
# Runs where glibc is no older than the builder's program needs; says which.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NAME=daisi-cdc-consumer
readonly TOOLS="$PWD/.tools/cargo" OUT="$PWD/target/dist"
readonly VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
readonly TARGET=$(rustc -vV | sed -n 's/^host: //p')
readonly RELEASE=$NAME-$VERSION-$TARGET

say() { printf 'dist: %s\n' "$*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

# tool PROGRAM VERSION: from the PATH or, once, into .tools.
tool() {
    command -v "$1" >/dev/null && return
    say "installing $1 $2 into .tools"
    cargo install --quiet --locked --root "$TOOLS" --version "$2" "$1"
}

# check_unit FILE: is it sound, and how exposed does it leave the service?
check_unit() {
    command -v systemd-analyze >/dev/null || { say "unit NOT checked: systemd-analyze is missing"; return; }
    # With the program where it was just built: it need not be installed here.
    sed "s|/usr/local/bin/$NAME|$WORK/$RELEASE/$NAME|" "$1" >"$WORK/$NAME.service"
    # An unknown key is a line, and no error.
    if systemd-analyze verify --man=no "$WORK/$NAME.service" 2>&1 | grep -F "$NAME.service"; then fail "systemd-analyze verify"; fi
    # 0 is closed, 100 open.
    systemd-analyze security --offline=true --threshold=15 "$WORK/$NAME.service" >"$WORK/security" || fail "$(tail -1 "$WORK/security")"
    say "unit: $(sed -n 's/^→ //p' "$WORK/security")"
}

export PATH="$TOOLS/bin:$PATH"
tool cargo-auditable 0.7.7
tool cargo-cyclonedx 0.5.9

readonly WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
rm -rf "$OUT"
mkdir -p "$OUT" "$WORK/$RELEASE/completions"

# Kernels for arm64 have pages of 4, 16 or 64 KiB, and jemalloc runs on what it was built for and below.
[ "$(uname -m)" != aarch64 ] || export JEMALLOC_SYS_WITH_LG_PAGE=16
cargo auditable build --release --locked --bin "$NAME"
strip -o "$WORK/$RELEASE/$NAME" "target/release/$NAME"
# What strip leaves must still say what the program is made of.
readelf -S "$WORK/$RELEASE/$NAME" | grep '\.dep-v0' >/dev/null || fail "the list of dependencies is not in the program"
say "needs glibc $(readelf -V "$WORK/$RELEASE/$NAME" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1 | cut -d_ -f2) or newer"

cp config.yaml LICENSE ./*.md "packaging/$NAME.service" "$WORK/$RELEASE/"
# What README and docs link to, and what whoever runs it needs: alert rules, dashboard, manifests, rights.
git ls-files -z -- docs deploy examples k8s tests/cases ':!k8s/tests' | xargs -0 cp --parents -t "$WORK/$RELEASE"
for page in README.md docs/*.md; do
    for file in $(grep -o '](\([^):#]*\)' "$page" | cut -c3- | grep -v '^https\?$'); do
        [ -e "$WORK/$RELEASE/$(dirname "$page")/$file" ] || fail "$page links to $file, which is not in the tarball"
    done
done
completions() { "$WORK/$RELEASE/$NAME" completions "$1" >"$WORK/$RELEASE/completions/$2"; }
completions bash "$NAME.bash"
completions zsh "_$NAME"
completions fish "$NAME.fish"
"$WORK/$RELEASE/$NAME" schema | cmp - "$WORK/$RELEASE/docs/config.schema.json" || fail "docs/config.schema.json is not the program's"
check_unit "packaging/$NAME.service"
"$WORK/$RELEASE/$NAME" check --offline --config config.yaml >/dev/null || fail "the program does not accept config.yaml"

# In a copy: the tool writes beside every manifest.
mkdir -p "$WORK/source"
git ls-files -z -- Cargo.toml Cargo.lock config.yaml actors src benches tests | xargs -0 cp --parents -t "$WORK/source"
cargo cyclonedx --quiet --manifest-path "$WORK/source/Cargo.toml" --format json --spec-version 1.5 --target "$TARGET" --override-filename sbom
sed "s|$WORK/source|/|g" "$WORK/source/sbom.json" >"$OUT/$RELEASE.cdx.json"

# The same tree gives the same tarball.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -C "$WORK" -c "$RELEASE" | gzip -n9 >"$OUT/$RELEASE.tar.gz"
(cd "$OUT" && sha256sum ./*.tar.gz ./*.cdx.json >SHA256SUMS && sha256sum --check --quiet SHA256SUMS)
say "target/dist: $(cd "$OUT" && ls -x)"
