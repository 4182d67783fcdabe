# One image for web, worker, scheduler and migrate; compose says which each container is.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tapeline
COPY requirements.lock /src/
RUN /opt/tapeline/bin/pip install --quiet --require-hashes -r /src/requirements.lock
# The code comes last: a change of it alone rebuilds in seconds.
COPY pyproject.toml README.md /src/
COPY engine /src/engine
COPY migrations /src/migrations
COPY service /src/service
COPY workers /src/workers
RUN /opt/tapeline/bin/pip install --quiet --no-deps --no-build-isolation /src

FROM python:3.13-slim
RUN groupadd --gid 10001 tapeline \
 && useradd --uid 10001 --gid tapeline --home-dir /var/lib/tapeline --no-create-home --shell /usr/sbin/nologin tapeline \
 && install -d -o tapeline -g tapeline /var/lib/tapeline /var/lib/tapeline/artifacts /var/lib/tapeline/data
COPY --from=build /opt/tapeline /opt/tapeline
ENV PATH=/opt/tapeline/bin:$PATH PYTHONUNBUFFERED=1 TAPELINE_HOME=/var/lib/tapeline
WORKDIR /var/lib/tapeline
USER tapeline
CMD ["gunicorn", "--config", "python:service.web.gunicorn_conf", "service.web.wsgi:app"]
