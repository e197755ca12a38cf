# One image for every node. Build it with a CPU build of torch where there is no GPU, a tenth of the size:
#
#   docker build -t p2pfl --build-arg PIP_FLAGS="--extra-index-url URL" .
#
# with the URL of CPU builds that PyTorch's install page names. compose.yaml starts three nodes of it.
FROM python:3.11-slim

ARG PIP_FLAGS=""

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY p2pfl p2pfl
COPY node node
COPY topology topology
COPY sim sim
RUN pip install --no-cache-dir --constraint constraints.txt $PIP_FLAGS ".[metrics]" && rm -rf /src

# A fresh volume takes the owner of the folder that it covers.
RUN useradd --system --uid 10001 --home-dir /data p2pfl \
    && install -d -m 0700 -o p2pfl -g p2pfl /data /data/node \
    && install -d -m 0755 -o p2pfl -g p2pfl /invites
USER p2pfl
WORKDIR /data
VOLUME /data/node
EXPOSE 7780 7781

# SIGTERM ends a node with a checkpoint.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["p2pfl", "node", "status", "--dir", "/data/node"]
ENTRYPOINT ["p2pfl"]
CMD ["--help"]
