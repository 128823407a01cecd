package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// layer is one layer of an image.
type layer struct {
	// Files are single files.
	Files []file `json:"files,omitempty"`
	// Folder is a folder whose content is added at the image's root: folders, files
	// and symbolic links.
	Folder string `json:"folder,omitempty"`
}

// file is a file of this machine and its path in the image.
type file struct {
	Path   string `json:"path"`
	Source string `json:"source"`
	// Mode holds the permissions, such as 0755 for a program. The permissions of the
	// source are ignored, because they depend on the umask of the build.
	Mode fs.FileMode `json:"mode"`
}

// entry is a file, symbolic link or folder in a layer. A folder has neither source nor
// link.
type entry struct {
	source string
	link   string
	mode   fs.FileMode
}

// tar returns the layer as a tar archive. All files belong to root and have no
// modification time.
func (l layer) tar() (v1.Layer, error) {
	entries, err := l.entries()
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, errors.New("no file is in it")
	}
	open := func() (io.ReadCloser, error) {
		reader, writer := io.Pipe()
		go func() { writer.CloseWithError(writeTar(writer, entries)) }()
		return reader, nil
	}
	return tarball.LayerFromOpener(open)
}

// entries returns the entries of the layer and their parent folders, by their paths
// without a leading slash.
func (l layer) entries() (map[string]entry, error) {
	entries := map[string]entry{}
	for _, f := range l.Files {
		if !path.IsAbs(f.Path) || f.Mode.Perm() == 0 {
			return nil, fmt.Errorf("file %q with mode %#o: want a path from / and permissions", f.Path, f.Mode)
		}
		entries[strings.TrimPrefix(path.Clean(f.Path), "/")] = entry{source: f.Source, mode: f.Mode.Perm()}
	}
	if l.Folder != "" {
		if err := addFolder(l.Folder, entries); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Collect(maps.Keys(entries)) {
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
			if _, found := entries[parent]; !found {
				entries[parent] = entry{mode: fs.ModeDir | 0o755}
			}
		}
	}
	return entries, nil
}

// addFolder adds the content of a folder to the entries.
func addFolder(folder string, entries map[string]entry) error {
	return filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == folder {
			return err
		}
		relative, err := filepath.Rel(folder, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		found := entry{mode: info.Mode()}
		switch info.Mode().Type() {
		case 0:
			found.source = name
		case fs.ModeSymlink:
			if found.link, err = os.Readlink(name); err != nil {
				return err
			}
		case fs.ModeDir:
			found.mode = fs.ModeDir | 0o755
		default:
			return fmt.Errorf("%s is neither file, folder nor link", name)
		}
		entries[filepath.ToSlash(relative)] = found
		return nil
	})
}

func writeTar(out io.Writer, entries map[string]entry) error {
	archive := tar.NewWriter(out)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if err := writeEntry(archive, name, entries[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return archive.Close()
}

func writeEntry(archive *tar.Writer, name string, e entry) error {
	header := &tar.Header{Name: name, Mode: int64(e.mode.Perm()), Format: tar.FormatPAX}
	switch {
	case e.mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
		return archive.WriteHeader(header)
	case e.link != "":
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, e.link, 0o777
		return archive.WriteHeader(header)
	}
	source, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(archive, source)
	return err
}
