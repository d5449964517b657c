# The server, without a model: that is mounted at /models. docs/operations.md has the command, and a pod.
FROM python:3.7.17-slim-bookworm AS installed
WORKDIR /source
COPY . .
RUN python -m venv --without-pip /opt/albert \
 && pip --python /opt/albert install --no-cache-dir --constraint constraints.txt '.[serve]'

FROM python:3.7.17-slim-bookworm
COPY --from=installed /opt/albert /opt/albert
ENV PATH=/opt/albert/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8500 8501
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "-c", \
    "import http.client as http; asked = http.HTTPConnection('127.0.0.1', 8501, timeout=2); \
     asked.request('GET', '/healthz'); raise SystemExit(asked.getresponse().status != 200)"]
# The first milliseconds of Python's have no handler for SIGTERM yet; a signal that is blocked waits for it.
ENTRYPOINT ["env", "--block-signal=TERM", "python", "-m", "serving.server", "--host", "0.0.0.0", "--model_base_path", "/models"]
