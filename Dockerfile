# sgfast as a container: docker build -t sgfast . && docker run --rm -v "$PWD:/data:ro" sgfast check policy.yaml
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
# Any version of the compiler will do, as nothing of it goes into the image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
# More of them: arrow, aws, dask, openstack.
ARG EXTRAS=compressed
RUN python -m venv /opt/sgfast \
    && /opt/sgfast/bin/pip install --no-cache-dir "/source[${EXTRAS}]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/sgfast /opt/sgfast
ENV PATH="/opt/sgfast/bin:${PATH}"
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["sgfast"]
CMD ["--help"]
