# docker build -t holdline .
FROM rust:1.95-slim-bookworm AS build
# jemalloc is built from C
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked --features jemalloc --bin holdline

FROM debian:bookworm-slim
# the trust anchors of wss:// backends
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/holdline /usr/bin/holdline
COPY docker/proxy.toml /etc/holdline/proxy.toml
ENV HOLDLINE_CONFIG=/etc/holdline/proxy.toml
# nobody's, and no name is needed for it
USER 65532:65532
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["holdline", "healthcheck", "--live"]
ENTRYPOINT ["holdline"]
CMD ["serve"]
