# The analysers on top of a task container's tools: rebuilt only when a version changes.
ARG TOOLS
FROM ${TOOLS} AS made
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
COPY analysers.txt /tmp/analysers.txt
ARG PIP_INDEX_URL
RUN python3 -m venv /opt/codespar/analysers \
 && PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 /opt/codespar/analysers/bin/pip install \
    --quiet --no-cache-dir --only-binary=:all: --require-hashes -r /tmp/analysers.txt \
 && rm -rf /opt/codespar/analysers/bin/pip* /opt/codespar/analysers/lib/python3*/site-packages/pip /opt/codespar/analysers/lib/python3*/site-packages/pip-*
FROM ${TOOLS}
COPY --from=made /opt/codespar/analysers /opt/codespar/analysers
RUN cd /tmp && export HOME=/tmp/home && mkdir $HOME && for name in ruff bandit semgrep; do /opt/codespar/analysers/bin/$name --version; done && rm -rf /tmp/*
