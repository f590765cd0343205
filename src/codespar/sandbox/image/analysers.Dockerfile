# The analysers' container: the programs, our rules, and last the runner, so that a changed rule rebuilds in a second.
ARG TOOLS
FROM ${TOOLS}
COPY rules/ /opt/codespar/rules/
COPY secretkinds.py analyse.py runner.py /opt/codespar/
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["/usr/bin/python3", "-I", "-S", "/opt/codespar/runner.py"]
