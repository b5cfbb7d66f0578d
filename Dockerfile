# The image of the service: the program, the libraries it is linked to, root certificates and a user. No shell, no package manager.
#   docker build -t daisi-cdc-consumer .
# What is built is what the builder is: amd64 or arm64.
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm

FROM ${RUST_IMAGE} AS build
# dev builds faster, for a look at the image itself.
ARG PROFILE=release
WORKDIR /build
# jemalloc is built by make.
RUN command -v make >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends make; }
# Kernels for arm64 have pages of 4, 16 or 64 KiB, and jemalloc runs on what it was built for and below.
RUN { echo '#!/bin/sh -e'; \
      echo '[ "$(uname -m)" != aarch64 ] || export JEMALLOC_SYS_WITH_LG_PAGE=16'; \
      echo 'exec cargo build --locked --profile "$PROFILE" --bin daisi-cdc-consumer'; \
    } >/usr/local/bin/build && chmod +x /usr/local/bin/build

# The dependencies alone, on stubs of our own packages: this layer is built again only when a manifest changes.
COPY Cargo.toml Cargo.lock ./
COPY actors/Cargo.toml actors/
COPY benches/common/Cargo.toml benches/common/
COPY tests/proof/Cargo.toml tests/proof/
COPY tests/saboteur/Cargo.toml tests/saboteur/
RUN mkdir -p src actors/src tests/proof/src tests/saboteur/src benches/e2e benches/micro benches/common/src/bin \
    && touch src/lib.rs actors/src/lib.rs tests/proof/src/lib.rs benches/common/src/lib.rs \
    && for main in src benches/e2e benches/micro tests/proof/src tests/saboteur/src; do echo 'fn main() {}' >"$main/main.rs"; done \
    && echo 'fn main() {}' | tee benches/common/src/bin/instructions.rs benches/declared.rs \
    && build

COPY config.yaml ./
COPY actors/src actors/src
COPY src src
# Newer than what the stubs left behind.
RUN find src actors/src -name '*.rs' -exec touch {} + \
    && build \
    && mkdir -p /image/usr/bin /image/etc/ssl/certs \
    && strip -o /image/usr/bin/daisi-cdc-consumer target/*/daisi-cdc-consumer \
    # The loader and the libraries, wherever this architecture keeps them.
    && ldd /image/usr/bin/daisi-cdc-consumer | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} /image \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'nonroot:x:65532:65532::/:/sbin/nologin' >/image/etc/passwd \
    && echo 'nonroot:x:65532:' >/image/etc/group \
    && echo 'hosts: files dns' >/image/etc/nsswitch.conf

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="daisi-cdc-consumer" \
      org.opencontainers.image.description="Turns Sequin change events in NATS JetStream into typed, enriched, deduplicated events in a second stream" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# Asks /healthz of http.listen as the environment has it; with a file of settings, give it to this command as well.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/bin/daisi-cdc-consumer", "healthcheck"]
ENTRYPOINT ["/usr/bin/daisi-cdc-consumer"]
CMD ["run"]
