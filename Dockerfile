# Control plane, policy server, composer, usage server and Envoy in one image. The command decides which of them runs.
FROM python:3.11.13-slim-bookworm AS program
# nftables: for xds redirect, the init container of pods with a sidecar
RUN apt-get update && apt-get install --yes --no-install-recommends nftables && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY xds_server xds_server
COPY filters filters
COPY protos protos
RUN pip install --no-cache-dir --constraint constraints.txt '.[postgresql,waf]'

# The software bill of materials (CycloneDX) of what is installed, made by a tool that is not in the image.
FROM program AS bill
RUN python -m venv /tool && /tool/bin/pip install --no-cache-dir --constraint constraints.txt cyclonedx-bom
RUN /tool/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --output-file /sbom.cdx.json "$(command -v python)"

FROM program
COPY --from=bill /sbom.cdx.json /usr/share/doc/xds-gateway/sbom.cdx.json
# volumes at /var/lib/xds (state) and /run/xds (sockets of Envoy and its composer) get their owner from here
RUN useradd --system --uid 10001 xds && install --directory --owner xds --mode 0700 /var/lib/xds /run/xds
USER xds
# 8080: the gateway, 18000: xDS, 18001: policy server, 18002: usage server, 19000 to 19003: admin addresses of these and of the composer,
# 19080: console
EXPOSE 8080 18000 18001 18002 19000 19001 19002 19003 19080
ENTRYPOINT ["xds"]
CMD ["run", "/gateway"]
