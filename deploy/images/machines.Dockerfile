# The machines service. From the root of the repository:
#   docker build --file deploy/images/machines.Dockerfile --tag uhmalguhm/machines .
ARG DEBIAN=debian:bookworm-slim

FROM ${DEBIAN} AS environment
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/tools && /opt/tools/bin/pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY . .
# The messages are generated first, with the tools that the lock file names; then the service gets an environment of its own.
RUN python3 -m venv /opt/generate \
    && UV_PROJECT_ENVIRONMENT=/opt/generate /opt/tools/bin/uv sync --frozen --no-cache --only-group generate \
    && /opt/generate/bin/python protos/generate.py
RUN python3 -m venv --without-pip /opt/uhm \
    && UV_PROJECT_ENVIRONMENT=/opt/uhm /opt/tools/bin/uv sync \
        --frozen --no-cache --no-dev --no-editable --compile-bytecode --package uhm-machines

FROM ${DEBIAN}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 qemu-system-x86 qemu-utils tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/uhmalguhm uhm \
    && install --directory --owner uhm --group uhm --mode 0700 /var/lib/uhmalguhm
COPY --from=environment /opt/uhm /opt/uhm
USER 10001:10001
ENV PATH=/opt/uhm/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 UHM_LISTEN=0.0.0.0:50063
EXPOSE 50063
# tini collects machines, which are children of nobody else.
ENTRYPOINT ["tini", "--", "python", "-m", "uhm_machines"]
