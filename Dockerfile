# Debian, not Alpine: several dependencies have no musl wheels.
FROM python:3.13-slim AS build
# a package mirror of the machine that builds, if it has one; unset otherwise
ARG PIP_INDEX_URL
WORKDIR /build
RUN python -m venv /opt/presend
# Dependencies first, against empty packages: a change of code does not install them again.
COPY pyproject.toml constraints.txt README.md ./
RUN mkdir worker tasks migrations && touch worker/__init__.py tasks/__init__.py migrations/empty \
 && /opt/presend/bin/pip install --no-cache-dir --quiet -c constraints.txt '.[flower,traces]'
COPY worker worker
COPY tasks tasks
COPY migrations migrations
RUN /opt/presend/bin/pip install --no-cache-dir --quiet --no-deps --force-reinstall .

FROM python:3.13-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin presend
COPY --from=build /opt/presend /opt/presend
ENV PATH=/opt/presend/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/presend
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["presend", "--help"]
