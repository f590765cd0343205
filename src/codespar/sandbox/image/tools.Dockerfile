# The tools of a task container, without the runner: rebuilt only when a tool's version changes.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ENV DEBIAN_FRONTEND=noninteractive
COPY certificates/ /usr/local/share/ca-certificates/codespar/
COPY apt.conf /etc/apt/apt.conf.d/80codespar
COPY host-ca.crt /etc/codespar/host-ca.crt
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git procps python3 ripgrep \
 && rm -rf /var/lib/apt/lists/* \
 && rm /etc/apt/apt.conf.d/80codespar \
 && update-ca-certificates \
 && useradd --uid 10001 --no-create-home --home-dir /tmp/home --shell /bin/sh codespar
COPY claude /opt/codespar/bin/claude
ARG CLAUDE_CODE_VERSION
RUN HOME=/tmp/home /opt/codespar/bin/claude --version | grep -F "${CLAUDE_CODE_VERSION} " && rm -rf /tmp/*
ENV PATH=/opt/codespar/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
