// The programs of the images that a test's node runs, and the one that assembles
// those images. A module of its own, so that what they need never reaches the
// product's dependencies.
module github.com/isthmus-mesh/isthmus/test/tools/images

go 1.26.0

require github.com/google/go-containerregistry v0.21.6

require (
	github.com/klauspost/compress v1.18.6 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
)
