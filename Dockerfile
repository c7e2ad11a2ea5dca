# Control plane, policy server and Envoy in one image. The command decides which of them runs.
FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY xds_server xds_server
COPY filters filters
COPY protos protos
RUN pip install --no-cache-dir --constraint constraints.txt .
RUN useradd --system --uid 10001 xds
USER xds
# 8080: the gateway, 18000: xDS, 19000: the admin address
EXPOSE 8080 18000 19000
ENTRYPOINT ["xds"]
CMD ["run", "/gateway"]
