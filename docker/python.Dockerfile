# Sandbox image for Python: the slim base, locked packages, and the guest side of
# AI CodeForge. What running code does not need is taken out, and the rest is
# flattened into one layer.
#
#   docker build -t ai-codeforge-python:latest -f docker/python.Dockerfile .
#
# --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:...   pin the base
# --build-arg EXTRA_PACKAGES="tomli>=2 tabulate"         more packages from pip
ARG PYTHON_IMAGE=python:3.11-slim


# The guest files, laid out under /guest as they will lie under /.
FROM ${PYTHON_IMAGE} AS init
LABEL ai-codeforge.stage="build"
# The distribution's compiler, whatever its version: it stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev make \
 && rm -rf /var/lib/apt/lists/*
COPY src/codeforge/guest/init /src/init
RUN make -C /src/init \
 && install -D -m 0755 /src/init/init /guest/opt/codeforge/init
COPY src/codeforge/guest/python/*.py src/codeforge/guest/python/codeforge_worker.pth /src/
# The official base and a distribution's Python keep packages in different folders.
RUN site="$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
 && install -m 0644 -t /guest/opt/codeforge /src/*.py \
 && python -m compileall -q --invalidation-mode unchecked-hash /guest/opt/codeforge \
 && install -D -m 0644 -t "/guest${site}" /src/codeforge_worker.pth


# The root file system.
FROM ${PYTHON_IMAGE} AS build
LABEL ai-codeforge.stage="build"
# prune-rootfs.sh empties /tmp: a stray file of a RUN line does not get into the image.
WORKDIR /tmp
RUN groupadd --gid 10001 runner \
 && useradd --uid 10001 --gid runner --home-dir /tmp --no-create-home --shell /usr/sbin/nologin runner
COPY docker/python-requirements.lock ./
# setuptools and wheel go first: if a package needs one, pip brings it back.
RUN pip uninstall --yes setuptools wheel \
 && pip install --no-cache-dir --no-compile --require-hashes --only-binary :all: -r python-requirements.lock

ARG EXTRA_PACKAGES=""
# One word, one package; versions are the caller's choice.
# hadolint ignore=DL3013,SC2086
RUN [ -z "${EXTRA_PACKAGES}" ] || { set -f; pip install --no-cache-dir --no-compile ${EXTRA_PACKAGES}; }

# Add your packages here:
# RUN pip install --no-cache-dir "your-package-name>=1.0.0"

# Without a network the engine makes no /etc/hosts: localhost is answered by this.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libnss-myhostname \
 && rm -rf /var/lib/apt/lists/* \
 && sed -i 's/^hosts:.*/hosts: files myhostname dns/' /etc/nsswitch.conf

# Every sandbox has a user id of its own (USER_IDS in src/codeforge/policy.py); all have the same name.
RUN seq --format='runner:x:%.0f:10001::/tmp:/usr/sbin/nologin' 20000 22047 >> /etc/passwd

RUN pip check && pip uninstall --yes pip
COPY docker/trim-python.sh docker/prune-rootfs.sh /tmp/
RUN mkdir /code && sh trim-python.sh && sh prune-rootfs.sh


FROM scratch
# A layer on top of the base could hide its files but not make it smaller.
# hadolint ignore=DL3067
COPY --from=build / /
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTEST_ADDOPTS="-p no:cacheprovider -p no:anyio" \
    OPENBLAS_NUM_THREADS=1
WORKDIR /code
# By name, as documented; the uid is 10001.
# hadolint ignore=DL3066
USER runner:runner
CMD ["python"]
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="AI CodeForge: Python" \
      org.opencontainers.image.description="Runs Python with pytest, requests, numpy, pandas, flask, fastapi and pydantic, locked down" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
# Last, for these change most often.
COPY --from=init /guest/ /
