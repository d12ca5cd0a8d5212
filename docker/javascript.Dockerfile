# Sandbox image for JavaScript: the slim base, locked packages, and the guest side of
# AI CodeForge. What running code does not need is taken out, and the rest is
# flattened into one layer.
#
#   docker build -t ai-codeforge-javascript:latest -f docker/javascript.Dockerfile .
#
# --build-arg NODE_IMAGE=node:18-slim@sha256:...         pin the base
# --build-arg EXTRA_PACKAGES="left-pad@^1.3 nanoid@3"    more packages from npm
ARG NODE_IMAGE=node:18-slim


# The guest files, laid out under /guest as they will lie under /.
FROM ${NODE_IMAGE} AS init
LABEL ai-codeforge.stage="build"
# The distribution's compiler, whatever its version: it stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev make \
 && rm -rf /var/lib/apt/lists/*
COPY src/codeforge/guest/init /src/init
RUN make -C /src/init \
 && install -D -m 0755 /src/init/init /guest/opt/codeforge/init
COPY src/codeforge/guest/node/*.cjs /src/
RUN install -m 0644 -t /guest/opt/codeforge /src/*.cjs


# The root file system. Packages go to /node_modules: from there require(), import
# and the TypeScript compiler find them in every directory.
FROM ${NODE_IMAGE} AS build
LABEL ai-codeforge.stage="build"
ENV NPM_CONFIG_AUDIT=false NPM_CONFIG_FUND=false NPM_CONFIG_UPDATE_NOTIFIER=false
WORKDIR /
RUN groupadd --gid 10001 runner \
 && useradd --uid 10001 --gid runner --home-dir /tmp --no-create-home --shell /usr/sbin/nologin runner
COPY docker/javascript/package.json docker/javascript/package-lock.json ./
# npm 10 can fail on a network error and still exit with 0; "npm ls" does not.
RUN npm ci --ignore-scripts --engine-strict \
 && npm ls

ARG EXTRA_PACKAGES=""
# One word, one package; versions are the caller's choice. npm says what it did,
# unless it failed (see above).
# hadolint ignore=DL3016,SC2086
RUN [ -z "${EXTRA_PACKAGES}" ] || { set -f \
 && npm install --ignore-scripts ${EXTRA_PACKAGES} > /tmp/npm.out \
 && cat /tmp/npm.out && test -s /tmp/npm.out; }

# Add your packages here:
# RUN npm install your-package-name

# Without a network the engine makes no /etc/hosts: localhost is answered by this.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libnss-myhostname \
 && rm -rf /var/lib/apt/lists/* \
 && sed -i 's/^hosts:.*/hosts: files myhostname dns/' /etc/nsswitch.conf

# Every sandbox has a user id of its own (USER_IDS in src/codeforge/policy.py); all have the same name.
RUN seq --format='runner:x:%.0f:10001::/tmp:/usr/sbin/nologin' 20000 22047 >> /etc/passwd

COPY docker/javascript/root-package.json docker/trim-node-modules.sh docker/prune-rootfs.sh /tmp/
RUN rm package.json package-lock.json && mv /tmp/root-package.json package.json \
 && for command in jest mocha; do ln -s "/node_modules/.bin/${command}" /usr/local/bin/ || exit 1; done \
 && mkdir /code && sh /tmp/trim-node-modules.sh --no-declarations && sh /tmp/prune-rootfs.sh


FROM scratch
# A layer on top of the base could hide its files but not make it smaller.
# hadolint ignore=DL3067
COPY --from=build / /
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    HOME=/tmp
WORKDIR /code
# By name, as documented; the uid is 10001.
# hadolint ignore=DL3066
USER runner:runner
CMD ["node"]
ARG NODE_IMAGE
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="AI CodeForge: JavaScript" \
      org.opencontainers.image.description="Runs JavaScript with jest, mocha, express, axios and lodash, locked down" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="${NODE_IMAGE}"
# Last, for these change most often.
COPY --from=init /guest/ /
