# syntax=docker/dockerfile:1

# Builds on the machine's own platform for every target, so that
#   docker buildx build --platform linux/amd64,linux/arm64 .
# emulates nothing. VERSION, COMMIT and DATE are what `isthmus version` prints.
ARG GO_VERSION=1.26

FROM --platform=$BUILDPLATFORM docker.io/library/golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY cmd cmd
COPY internal internal
COPY patches patches
COPY webhook webhook
ARG TARGETOS=linux
ARG TARGETARCH=amd64
ARG VERSION=dev
ARG COMMIT=unknown
ARG DATE=unknown
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT} -X main.date=${DATE}" \
    -o /out/ ./cmd/isthmus ./cmd/isthmus-publish

# Nothing but the two programs: they trust the API server by the cluster's own
# CA, so they need no certificates of the world, and they run no other program.
# isthmus-publish is the one that runs beside an edge.
FROM scratch
COPY --from=build /out/isthmus /out/isthmus-publish /
USER 65532:65532
ENTRYPOINT ["/isthmus"]
