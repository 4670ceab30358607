# The builder: its API (`uhm_builder`, the default) and its workers (`uhm_builder.worker`). From the root of the repository:
#   docker build --file deploy/images/builder.Dockerfile --tag uhmalguhm/builder .
# Debian 13, because its erofs-utils is the first that reads tar archives. The environment sees the system's packages:
# guestfs is not on PyPI.
ARG DEBIAN=debian:trixie-slim

FROM ${DEBIAN} AS guest
RUN apt-get update \
    && apt-get install --yes --no-install-recommends busybox-static gcc kmod libyaml-dev make musl-tools \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY tools/setup/portable-kernel.sh tools/setup/portable-kernel.sh
RUN apt-get update \
    && mkdir -p build/guest/kernels && GENERIC_KERNEL=always sh -eu tools/setup/portable-kernel.sh 3>&1 \
    && rm -rf /var/lib/apt/lists/*
COPY guest guest
RUN make -C guest

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
RUN python3 -m venv --without-pip --system-site-packages /opt/uhm \
    && UV_PROJECT_ENVIRONMENT=/opt/uhm /opt/tools/bin/uv sync \
        --frozen --no-cache --no-dev --no-editable --compile-bytecode --package uhm-builder

FROM ${DEBIAN}
# The kernel is what guests boot, and what libguestfs's appliance boots; it need not be the node's.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates cryptsetup-bin e2fsprogs erofs-utils linux-image-cloud-amd64 python3 python3-guestfs \
        qemu-system-x86 qemu-utils rpm syslinux syslinux-common systemd-boot-efi tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/uhmalguhm uhm \
    && install --directory --owner uhm --group uhm --mode 0700 /var/lib/uhmalguhm
COPY --from=guest /src/build/guest/init /opt/uhm-guest/init
COPY --from=guest /src/build/guest/portable /opt/uhm-guest/portable
COPY --from=guest /src/build/guest/kernels/generic /opt/uhm-guest/kernels/generic
COPY --from=environment /opt/uhm /opt/uhm
USER 10001:10001
ENV PATH=/opt/uhm/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 \
    UHM_GUEST_INIT=/opt/uhm-guest/init UHM_GUEST_PORTABLE=/opt/uhm-guest/portable \
    UHM_GUEST_PORTABLE_KERNEL=/opt/uhm-guest/kernels/generic
# tini collects the processes that libguestfs leaves behind.
ENTRYPOINT ["tini", "--", "python", "-m"]
CMD ["uhm_builder"]
