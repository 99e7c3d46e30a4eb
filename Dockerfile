# One image for every role: docker run penstock dispatcher | worker | status | demo …
# "Containers" in docs/operations.md says how to run it, compose.yaml is a whole cluster.
#
# Stages from what seldom changes to what often does: a change of a source file makes the wheel
# again, and the small layer that holds it; not the layer of TensorFlow and its like.

# The dependencies alone: another setting in pyproject.toml is no reason to install them again.
FROM python:3.11-slim-bookworm AS requirements
WORKDIR /build
COPY pyproject.toml .
RUN python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['demo'], sep='\n')" \
    > requirements.txt

# A virtual environment without pip: the base image's pip fills it from outside.
FROM python:3.11-slim-bookworm AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/penstock
COPY --from=requirements /build/requirements.txt /build/
RUN pip --python /opt/penstock/bin/python install --requirement /build/requirements.txt

FROM dependencies AS wheel
WORKDIR /build/source
COPY . .
RUN pip wheel --no-deps --wheel-dir /build/wheels . \
    && pip --python /opt/penstock/bin/python install --no-deps --prefix /build/installed \
        /build/wheels/penstock-*.whl

FROM python:3.11-slim-bookworm
# Fixed numbers: the owner of a volume is a number, and has to be the same after an upgrade.
# The directories are made before VOLUME, so that a new volume gets their owner.
RUN groupadd --gid 10001 penstock \
    && useradd --uid 10001 --gid 10001 --no-log-init --home-dir /var/lib/penstock \
        --shell /usr/sbin/nologin penstock \
    && install --directory --owner penstock --group penstock /var/lib/penstock \
        /var/lib/penstock/journal /var/lib/penstock/checkpoints /var/lib/penstock/cache
COPY --from=dependencies /opt/penstock /opt/penstock
COPY --from=wheel /build/installed /opt/penstock

# PENSTOCK_ANNOUNCE: where a daemon says what it is and where it serves; the health check asks there.
ENV PATH=/opt/penstock/bin:$PATH \
    PENSTOCK_ANNOUNCE=/tmp/penstock.json \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2

USER penstock
WORKDIR /var/lib/penstock
VOLUME ["/var/lib/penstock/journal", "/var/lib/penstock/checkpoints", "/var/lib/penstock/cache"]
# Nothing listens there unless told so: penstock dispatcher --port 5050, penstock worker --port 5051.
EXPOSE 5050 5051
# Right for a dispatcher, a standby and a worker; start one-off commands with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=30s --start-period=60s --retries=3 CMD ["penstock", "health"]
ENTRYPOINT ["penstock"]
CMD ["--help"]

# Last: these change with every build, and cost no layer.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="penstock" \
      org.opencontainers.image.description="Fault-tolerant input data service for model training" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
