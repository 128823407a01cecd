package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// largestFile is the most that is read of a file, in bytes. The chains of real
// meshes have a few KiB.
const largestFile = 1 << 20

// files reads a certificate directory and the anchors beside it.
type files struct {
	path, rootsFile string
	roots           []*x509.Certificate // of the last rootsFile that was good
}

// content is one reading.
type content struct {
	material Material
	roots    []*x509.Certificate
	// err says why there is no material. It is no *Rejection where a file is
	// missing.
	err error
	// rootsErr says why roots are those of before.
	rootsErr error
	// digest is the same for the same files, and for the same errors.
	digest string
}

func (f *files) read() content {
	var c content
	sum := sha256.New()
	var errs [3]error
	for i, file := range []struct {
		name string
		data *[]byte
	}{{KeyFile, &c.material.Key}, {ChainFile, &c.material.Chain}, {RootFile, &c.material.Roots}} {
		*file.data, errs[i] = readFile(filepath.Join(f.path, file.name))
		add(sum, *file.data, errs[i])
	}
	if f.rootsFile != "" {
		c.rootsErr = f.readRoots(sum)
		c.roots = f.roots
	}
	c.digest = string(sum.Sum(nil))
	for _, err := range errs {
		if c.err == nil {
			c.err = err
		}
	}
	if c.err == nil && c.rootsErr != nil && f.roots == nil {
		c.err = c.rootsErr
	}
	return c
}

func (f *files) readRoots(sum hash.Hash) error {
	data, err := readFile(f.rootsFile)
	add(sum, data, err)
	if err != nil {
		return err
	}
	roots, err := ParseCertificates(data)
	if err != nil {
		return fmt.Errorf("%s: %w", f.rootsFile, reject(Malformed, "root certificates: %v", err))
	}
	f.roots = roots
	return nil
}

// add tells every content, and every error, from every other.
func add(sum hash.Hash, data []byte, err error) {
	if err != nil {
		data = []byte(err.Error())
	}
	head := binary.BigEndian.AppendUint64(nil, uint64(len(data)))
	if err != nil {
		head = append(head, 1)
	}
	sum.Write(head)
	sum.Write(data)
}

// readFile reads a regular file, and never blocks or fills the memory: who
// writes the directory may be less trusted than we are. The error is a
// *Rejection unless the file does not exist.
func readFile(path string) ([]byte, error) {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", path, reject(Malformed, format, args...))
	}
	because := func(err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		var in *fs.PathError
		if errors.As(err, &in) {
			err = in.Err
		}
		return wrong("cannot be read: %v", err)
	}
	// A pipe without a writer would block without O_NONBLOCK.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, because(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, because(err)
	case !info.Mode().IsRegular():
		return nil, wrong("want a regular file, got %s", info.Mode())
	case info.Size() > largestFile:
		return nil, wrong("want a file of at most %d bytes, got %d", largestFile, info.Size())
	}
	data, err := readAll(f)
	if err != nil {
		return nil, because(err)
	}
	return data, nil
}

// readAll does not trust the size that a file had, or says that it has.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, largestFile+1))
	if err == nil && len(data) > largestFile {
		return nil, fmt.Errorf("it has more than %d bytes", largestFile)
	}
	return data, err
}
