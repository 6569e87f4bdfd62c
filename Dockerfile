# The binary in an image of its own: `docker build -t tillstream .`; docker-compose.yml runs it with everything around.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin tillstream \
    && install -D -m 0755 target/release/tillstream /out/usr/local/bin/tillstream \
    && install -D -m 0755 ops/docker/healthy /out/usr/local/bin/healthy \
    && install -D -m 0644 LICENSE /out/usr/share/doc/tillstream/LICENSE \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt \
    && install -d -m 0700 -o 10001 -g 10001 /out/var/lib/tillstream

# The same Debian release as the build stage: the binary is linked to its libc.
FROM debian:bookworm-20251229-slim
COPY --from=build /out /
USER 10001:10001
WORKDIR /var/lib/tillstream
ENV TILLSTREAM_DATA_DIR=/var/lib/tillstream \
    TILLSTREAM_HTTP=0.0.0.0:8080 \
    TILLSTREAM_LOG_FORMAT=json
VOLUME /var/lib/tillstream
EXPOSE 8080
# SIGTERM drains: the door closes, the batch is finished and committed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 CMD ["healthy", "/healthz"]
ENTRYPOINT ["tillstream"]
CMD ["serve"]
