# Nibble for the CPU. Two stages: build on Debian 12, run on Debian 12 slim as a user without rights.
#   docker build --format docker -t nibble .        (the format keeps the health check)
ARG BUILD_BASE=debian:bookworm-slim
ARG RUN_BASE=debian:bookworm-slim

FROM ${BUILD_BASE} AS build
COPY deploy/install_packages.sh /src/deploy/
RUN /src/deploy/install_packages.sh build && rm -rf /var/lib/apt/lists/*
COPY CMakeLists.txt CMakePresets.json /src/
COPY proto /src/proto
COPY kernels /src/kernels
COPY engine /src/engine
COPY service /src/service
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DNIBBLE_TESTS=OFF \
    && cmake --build /build --target nibble && strip /build/nibble

FROM ${RUN_BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgrpc++1.51 libprotobuf32 libprometheus-cpp-core1.0 \
       libprometheus-cpp-pull1.0 libabsl20220623 libsimdjson14 libutf8proc2 \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*
COPY --from=build /build/nibble /usr/bin/nibble
LABEL org.opencontainers.image.title="nibble" \
      org.opencontainers.image.description="gRPC model server with 4-bit NF4 weights"
USER 65532:65532
WORKDIR /models
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["/usr/bin/nibble", "health", "--target", "127.0.0.1:50051"]
# Plaintext on every address: the image is meant to stand behind a mesh or an ingress that ends TLS (README).
ENTRYPOINT ["/usr/bin/nibble"]
CMD ["serve", "--listen", "0.0.0.0:50051", "--insecure", "--metrics", "0.0.0.0:9464", "--model-root", "/models"]
