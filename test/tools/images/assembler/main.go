// Command assembler writes a container image as a tarball, in the format of "docker
// save", from a description on its standard input. It needs neither a container
// runtime nor a registry: an image is a list of files. The same description and the
// same files result in the same tarball, byte for byte.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("assembler: ")
	if err := run(os.Stdin); err != nil {
		log.Fatal(err)
	}
}

// description describes an image.
type description struct {
	// Name is the image's name with its tag, such as registry.k8s.io/pause:3.10.
	Name string `json:"name"`
	// Output is the path of the tarball. The file appears when it is complete.
	Output string `json:"output"`
	// Layers are the layers of the image, the lowest first.
	Layers []layer `json:"layers"`
	// User is uid:gid. Entrypoint is the program with its first arguments.
	User       string   `json:"user"`
	Entrypoint []string `json:"entrypoint"`
	Env        []string `json:"env,omitempty"`
}

func run(in io.Reader) error {
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	var d description
	if err := decoder.Decode(&d); err != nil {
		return fmt.Errorf("read the description: %w", err)
	}
	if err := d.write(); err != nil {
		return fmt.Errorf("image %s: %w", d.Name, err)
	}
	return nil
}

// write writes the image to a temporary file beside Output and renames the file when
// it is complete.
func (d description) write() error {
	tag, err := name.NewTag(d.Name, name.StrictValidation)
	if err != nil {
		return err
	}
	image, err := d.image()
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(d.Output), "assembling-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary.Name()) }()
	err = errors.Join(tarball.Write(tag, image, temporary), temporary.Chmod(0o644), temporary.Close())
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), d.Output)
}

func (d description) image() (v1.Image, error) {
	image := empty.Image
	for i, l := range d.Layers {
		content, err := l.tar()
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		image, err = mutate.AppendLayers(image, content)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config.User, file.Config.Entrypoint, file.Config.Env, file.Config.WorkingDir = d.User, d.Entrypoint, d.Env, "/"
	return mutate.ConfigFile(image, file)
}
