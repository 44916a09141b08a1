FROM python:3.13-slim AS build
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# The same uv as in dev/setup.
RUN python -m pip install --no-cache-dir uv==0.13.9
# Dependencies change less often than the code: they get a layer of their own.
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY clients/python/pyproject.toml ./clients/python/
RUN uv sync --locked --no-dev --extra tracing --extra mcp --no-install-workspace
COPY clients/python ./clients/python
COPY src ./src
COPY alembic ./alembic
RUN uv sync --locked --no-dev --extra tracing --extra mcp --no-editable

FROM python:3.13-slim
# Nothing is written but /data (and /tmp): the root file system may be read-only.
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AGENT_GATEWAY_DATA_DIR=/data
WORKDIR /app
COPY --from=build /app/.venv ./.venv
RUN install -d -m 0750 -o 10001 -g 10001 /data
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["agent-gateway", "health"]
ENTRYPOINT ["agent-gateway"]
CMD ["serve", "--host", "0.0.0.0"]
