FROM python:3.13-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/venv
RUN pip --python /opt/venv/bin/python install --require-hashes -r requirements.lock


FROM python:3.13-slim

RUN useradd --system --no-create-home --uid 10001 chainserve
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY chainserve ./chainserve
COPY chains ./chains
COPY server.py ./

ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 CHAINSERVE_HOST=0.0.0.0 PORT=8000
USER 10001
EXPOSE 8000

# Asks the server in this container, past any proxy that the environment names.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["python", "-c", \
    "import os, urllib.request as r; \
    port = os.environ.get('CHAINSERVE_PORT') or os.environ['PORT']; \
    r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{port}/livez', timeout=4)"]

CMD ["python", "server.py"]
