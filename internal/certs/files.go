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

// maxFileSize is the largest file that is read, in bytes. The chains of real meshes
// have a few KiB.
const maxFileSize = 1 << 20

// files reads a certificate directory and the file with the mesh's anchors.
type files struct {
	path, rootsFile string
	roots           []*x509.Certificate // the last valid content of rootsFile
}

// content is what one read returned.
type content struct {
	material Material
	roots    []*x509.Certificate
	// err says why there is no material. It is a *Rejection unless a file is
	// missing.
	err error
	// rootsErr says what of rootsFile cannot be read; roots hold the rest, and what an
	// earlier read found.
	rootsErr error
	// digest is equal for equal files and errors.
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
		hashFile(sum, *file.data, errs[i])
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
	hashFile(sum, data, err)
	if err != nil {
		return err
	}
	roots, err := ParseRoots(data)
	if err != nil {
		// An earlier root may be the one that cannot be read now.
		f.roots = MergeRoots(f.roots, roots)
		return fmt.Errorf("%s: %w", f.rootsFile, reject(Malformed, "root certificates: %v", err))
	}
	f.roots = roots
	return nil
}

// hashFile adds a file, or the error of reading it. The length and the kind come
// first, so that different sequences have different sums.
func hashFile(sum hash.Hash, data []byte, err error) {
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

// readFile reads a regular file. It never blocks and limits the memory it uses: the
// writer of the directory may be less trusted than this process. The error is a
// *Rejection unless the file does not exist.
func readFile(path string) ([]byte, error) {
	malformed := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", path, reject(Malformed, format, args...))
	}
	readError := func(err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		return malformed("cannot be read: %v", err)
	}
	// Opening a pipe that has no writer blocks without O_NONBLOCK.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, readError(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, readError(err)
	case !info.Mode().IsRegular():
		return nil, malformed("want a regular file, got %s", info.Mode())
	case info.Size() > maxFileSize:
		return nil, malformed("want a file of at most %d bytes, got %d", maxFileSize, info.Size())
	}
	data, err := readAll(f)
	if err != nil {
		return nil, readError(err)
	}
	return data, nil
}

// readAll limits the read itself: a file may grow, or report a wrong size.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFileSize+1))
	if err == nil && len(data) > maxFileSize {
		return nil, fmt.Errorf("it has more than %d bytes", maxFileSize)
	}
	return data, err
}
