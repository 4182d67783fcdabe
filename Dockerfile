# One image for web, worker, scheduler, setup and migrate; docker-compose.yml says which each container is.

# `make pin-images` writes the digest of today's into .env.
ARG PYTHON_IMAGE=python:3.13-slim

# What we stand on: changes with the lock only.
FROM ${PYTHON_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/tapeline
COPY requirements.lock /src/
# Setuptools is needed to build our own package and stays behind, as do the tests, stubs and sources in C of others.
RUN pip --python /opt/tapeline/bin/python install --quiet --require-hashes --only-binary :all: -r /src/requirements.lock \
 && cd /opt/tapeline/lib/python3.*/site-packages \
 && mkdir /opt/build-tools && mv setuptools* _distutils_hack distutils-precedence.pth /opt/build-tools/ \
 && find . -type d \( -name tests -o -name testing -path './sqlalchemy/*' -o -name sample_data \
      -o -path ./onnx/backend/test \) -prune -exec rm -rf {} + \
 && find . \( -name '*.pyi' -o -name '*.c' -o -name '*.cc' -o -name '*.h' \) -delete

# Fashion-MNIST, as Debian packages it.
FROM ${PYTHON_IMAGE} AS datasets
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends dataset-fashion-mnist >/dev/null

# Letters of the scripts of today, 8 MB, for class names in pictures; FriBiDi joins and arranges those of Arabic and Hebrew.
# The scripts of Noto's other fonts, 40 MB, are historical, or DejaVu has them, which comes with Matplotlib.
FROM ${PYTHON_IMAGE} AS letters
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends \
      fonts-noto-core fonts-wqy-microhei libfribidi0 >/dev/null \
 && install -d /letters/share/fonts /letters/share/doc /letters/lib \
 && cd /usr/share/fonts/truetype \
 && cp wqy/wqy-microhei.ttc noto/NotoSerifTibetan-Regular.ttf /letters/share/fonts \
 && for script in Bengali Devanagari Ethiopic Gujarati Gurmukhi Kannada Khmer Malayalam Mongolian Myanmar Oriya Sinhala \
      Tamil Telugu Thaana Thai; do cp noto/NotoSans$script-Regular.ttf /letters/share/fonts || exit 1; done \
 && cp -L /usr/lib/*/libfribidi.so.0 /letters/lib \
 && for package in fonts-noto-core fonts-wqy-microhei libfribidi0; do \
      install -D -m 644 /usr/share/doc/$package/copyright /letters/share/doc/$package/copyright || exit 1; done

# Our own code, which changes most often and weighs least.
FROM dependencies AS code
COPY pyproject.toml README.md /src/
COPY engine /src/engine
COPY migrations /src/migrations
COPY service /src/service
COPY tapeline /src/tapeline
COPY workers /src/workers
RUN PYTHONPATH=/opt/build-tools pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel /src \
 && pip --python /opt/tapeline/bin/python install --quiet --no-deps --prefix /install /wheel/*.whl

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 tapeline \
 && useradd --uid 10001 --gid tapeline --home-dir /var/lib/tapeline --no-create-home --shell /usr/sbin/nologin tapeline \
 && install -d -o tapeline -g tapeline \
      /var/lib/tapeline /var/lib/tapeline/artifacts /var/lib/tapeline/backups /var/lib/tapeline/bucket /var/lib/tapeline/cache \
      /var/lib/tapeline/data /var/lib/tapeline/keys /var/lib/tapeline/run /var/lib/tapeline/secrets /var/lib/tapeline/secrets/app \
      /var/lib/tapeline/secrets/owner /var/lib/tapeline/secrets/servers
COPY --from=datasets /usr/share/datasets/fashion-mnist/*.gz /usr/share/datasets/fashion-mnist/
COPY --from=datasets /usr/share/doc/dataset-fashion-mnist/copyright /usr/share/datasets/fashion-mnist/
COPY --from=letters /letters /usr/local
RUN ldconfig
COPY --from=dependencies /opt/tapeline /opt/tapeline
COPY --from=code /install /opt/tapeline
# The root file system may be read-only: what matplotlib keeps for itself goes where all that is passing goes.
ENV PATH=/opt/tapeline/bin:$PATH PYTHONUNBUFFERED=1 TAPELINE_HOME=/var/lib/tapeline MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /var/lib/tapeline
USER tapeline
CMD ["gunicorn", "--config", "python:service.web.gunicorn_conf", "service.web.wsgi:app"]
