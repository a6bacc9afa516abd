# The gateway in a container.
#
#   docker build --build-arg VERSION=$(git describe --tags --always) -t gateway .
#
# On the host's network, which is the simplest: http://localhost:8080 as without
# a container, and every address of the host is offered to viewers.
#
#   docker run --network host gateway
#
# It prints the address to open, with the admin's token. That token, and the key
# by which tokens are signed, are kept in /var/lib/gateway: with a volume there
# they outlast the container. Further tokens:
#
#   docker run -v gateway-state:/var/lib/gateway …
#   docker exec CONTAINER gateway token -config /etc/gateway/gateway.yaml -role viewer
#
# On a network of its own, both TCP and UDP have to be published, the gateway
# has to listen on every address, and viewers have to be told an address of the
# host at which they reach the UDP port:
#
#   docker run -p 8080:8080/tcp -p 8080:8080/udp -e GATEWAY_LISTEN=0.0.0.0:8080 \
#     -e GATEWAY_ICE_PUBLIC_ADDRESSES=192.0.2.10 gateway
#
# A camera: the device, and the host's group that may open it, by number.
#
#   --device /dev/video0 --group-add $(stat -c %g /dev/video0)
#
# The desktop: the X server's socket, its name, and a cookie that user 10001 can
# read (or `xhost +si:localuser:USER` for a host user of that number). ximagesrc
# uses shared memory when it may: --ipc host.
#
#   -e DISPLAY -v /tmp/.X11-unix:/tmp/.X11-unix:ro --ipc host \
#     -e XAUTHORITY=/run/xauth -v $XAUTHORITY:/run/xauth:ro
#
# Sound from the host's PulseAudio or PipeWire:
#
#   -e PULSE_SERVER=unix:/run/pulse -v $XDG_RUNTIME_DIR/pulse/native:/run/pulse
#
# Pipelines and configuration of your own:
#
#   -v $PWD/pipelines:/etc/gateway/pipelines:ro -v $PWD/configs/gateway.yaml:/etc/gateway/gateway.yaml:ro
#
# Who hands the image on: see NOTICE.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY configs/debian-packages.txt configs/
RUN apt-get update \
 && apt-get install -y --no-install-recommends $(awk '$1 == "build" { print $2 }' configs/debian-packages.txt) \
 && rm -rf /var/lib/apt/lists/*
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/gateway ./cmd/gateway

FROM debian:bookworm-slim
WORKDIR /etc/gateway
COPY configs/debian-packages.txt /usr/share/doc/gateway/
RUN apt-get update \
 && apt-get install -y --no-install-recommends $(awk '$1 == "run" { print $2 }' /usr/share/doc/gateway/debian-packages.txt) \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --groups audio,video --create-home --home-dir /var/lib/gateway --shell /usr/sbin/nologin gateway
COPY LICENSE NOTICE /usr/share/doc/gateway/
COPY configs/gateway.yaml /etc/gateway/
COPY pipelines /etc/gateway/pipelines
COPY --from=build /out/gateway /usr/local/bin/gateway
USER gateway
ENV XDG_STATE_HOME=/var/lib
EXPOSE 8080/tcp 8080/udp
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD ["gateway", "healthcheck", "-config", "/etc/gateway/gateway.yaml"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["gateway"]
CMD ["-config", "/etc/gateway/gateway.yaml", "-pipelines", "/etc/gateway/pipelines"]
