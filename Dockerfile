# Two images: `--target cpu` and, by default, `cuda`. Both run as uid 1000 or any other, group 0, on a read-only root with
# /data and /tmp writable, and have neither a C compiler nor pip. docs/image.md says how to run them.
#
# A build that must be repeatable names the base by digest: --build-arg BASE_IMAGE=debian:bookworm-slim@sha256:...
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG DEBIAN_FRONTEND=noninteractive
# Debian's bytecode goes: /opt/bytecode has that of the modules that the server imports.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*.log /var/log/apt \
        /usr/share/doc /usr/share/man /usr/share/locale \
    && find /usr -name __pycache__ -prune -exec rm -r {} +

# Everything that only builds need.
FROM base AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev python3-pip \
    && rm -rf /var/lib/apt/lists/*
# PIP_COMPILE=0: no bytecode beside the modules. (PIP_NO_COMPILE=1 would ask for it: pip sets its option to the value.)
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_COMPILE=0 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv --without-pip /opt/peregrine
ENV PATH=/opt/peregrine/bin:$PATH

# torch alone; what it requires is in requirements/serve.txt.
FROM build AS torch-cpu
ARG TORCH_VERSION=2.13.0
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3013 # Pinned: the linter does not see it behind the index.
RUN pip --python /opt/peregrine/bin/python install --no-deps \
        ${TORCH_CPU_INDEX:+--index-url "${TORCH_CPU_INDEX}"} "torch==${TORCH_VERSION}"
COPY scripts/image/slim.sh /build/
RUN /build/slim.sh cpu

FROM build AS dependencies
COPY requirements/serve.txt /build/
RUN pip --python /opt/peregrine/bin/python install --require-hashes --no-deps --requirement /build/serve.txt
COPY scripts/image/slim.sh /build/
RUN /build/slim.sh

# The wheel, with the C kernels for AVX2, AVX-512 and AMX. Its build tools have the versions of requirements/dev.txt.
FROM dependencies AS dependencies-cpu
RUN /build/slim.sh cpu

FROM build AS package
COPY requirements/dev.txt /build/
RUN sed -nE 's/^([A-Za-z0-9._-]+==[^ ]+).*/\1/p' /build/dev.txt >/build/constraints.txt
COPY pyproject.toml hatch_build.py README.md LICENSE /source/
COPY router /source/router
COPY server /source/server
COPY kernels /source/kernels
RUN PIP_CONSTRAINT=/build/constraints.txt pip wheel --no-deps --wheel-dir /build /source \
    && pip --python /opt/peregrine/bin/python install --no-deps /build/peregrine-*.whl

# Bytecode of every module that a start imports: compiling it again at each start would take seconds.
FROM torch-cpu AS bytecode-cpu
COPY --from=dependencies-cpu /opt/peregrine /opt/peregrine
COPY --from=package /opt/peregrine /opt/peregrine
COPY scripts/image/import_all.py /build/
RUN PYTHONDONTWRITEBYTECODE='' PYTHONPYCACHEPREFIX=/opt/bytecode python /build/import_all.py

FROM base AS runtime
LABEL org.opencontainers.image.title="Peregrine" \
      org.opencontainers.image.description="Text-generation server for the Falcon family of language models" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN install --directory --owner 1000 --group 0 --mode 775 /data \
    && printf '#!/bin/sh\nexec peregrine serve "$@"\n' >/usr/local/bin/text-generation-launcher \
    && chmod 755 /usr/local/bin/text-generation-launcher
# USER: Python asks for a name, and an arbitrary uid has none.
ENV PATH=/opt/peregrine/bin:$PATH \
    PYTHONPYCACHEPREFIX=/opt/bytecode \
    HOME=/tmp \
    USER=peregrine \
    HF_HOME=/data \
    PEREGRINE_HOSTNAME=0.0.0.0 \
    PORT=80
USER 1000:0
WORKDIR /tmp
VOLUME /data
EXPOSE 80
STOPSIGNAL SIGTERM
# A large model takes minutes to load: that is "starting". A start that fails ends the container.
HEALTHCHECK --start-period=30m --interval=10s --timeout=5s --retries=3 CMD ["peregrine", "health"]
ENTRYPOINT ["tini", "--", "peregrine", "serve"]

FROM runtime AS cpu
COPY --from=torch-cpu /opt/peregrine /opt/peregrine
COPY --from=dependencies-cpu /opt/peregrine /opt/peregrine
COPY --from=package /opt/peregrine /opt/peregrine
COPY --from=bytecode-cpu /opt/bytecode /opt/bytecode

# The CUDA build comes with its libraries of CUDA and with Triton as packages; the others that it requires go again.
FROM build AS torch-cuda
ARG TORCH_VERSION=2.13.0
ARG TRITON_VERSION=3.7.1
# hadolint ignore=DL4006 # The shell is that of the stage `base`.
RUN pip --python /opt/peregrine/bin/python install "torch==${TORCH_VERSION}" "triton==${TRITON_VERSION}" \
    && pip --python /opt/peregrine/bin/python list --format freeze | sed 's/==.*//' \
        | grep -vE '^(torch|triton|nvidia|cuda)' \
        | xargs pip --python /opt/peregrine/bin/python uninstall --yes
COPY scripts/image/slim.sh /build/
RUN /build/slim.sh

FROM torch-cuda AS bytecode-cuda
COPY --from=dependencies /opt/peregrine /opt/peregrine
COPY --from=package /opt/peregrine /opt/peregrine
COPY scripts/image/import_all.py /build/
RUN PYTHONDONTWRITEBYTECODE='' PYTHONPYCACHEPREFIX=/opt/bytecode python /build/import_all.py

# GPU kernels as machine code for A100, A10G and H100, and the C stub by which Triton launches them.
FROM bytecode-cuda AS kernels
ARG KERNEL_ARCHITECTURES="80 86 90"
ARG KERNEL_MODELS=""
COPY kernels/peregrine_kernels/aot /opt/peregrine/aot
# Triton keys the C stub by whether there is a command "file": the image has none, nor has this stage.
# hadolint ignore=DL4006
RUN mv /opt/peregrine/aot /opt/peregrine/lib/python3*/site-packages/peregrine_kernels/ \
    && export TRITON_CACHE_DIR=/opt/kernels TRITON_STORE_BINARY_ONLY=1 \
    && echo "${KERNEL_ARCHITECTURES}" | tr ' ' '\n' \
        | xargs -P 3 -I % sh -c "python -m peregrine_kernels.aot.cache --architectures % --models ${KERNEL_MODELS}"

FROM runtime AS cuda
# The driver's libraries are mounted by NVIDIA's container runtime; Triton need not search for them.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TRITON_LIBCUDA_PATH=/usr/lib/x86_64-linux-gnu \
    TRITON_CACHE_DIR=/opt/kernels \
    TRITON_CACHE_MANAGER=peregrine_kernels.gpu.kernel_cache:KernelCache
COPY --from=torch-cuda /opt/peregrine /opt/peregrine
COPY --from=dependencies /opt/peregrine /opt/peregrine
COPY --from=package /opt/peregrine /opt/peregrine
COPY --from=kernels /opt/kernels /opt/kernels
COPY --from=bytecode-cuda /opt/bytecode /opt/bytecode
