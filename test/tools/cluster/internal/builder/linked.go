package builder

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// copyLinked copies a program from one root folder into another, with its loader and
// all libraries that the program and these libraries are linked to.
func copyLinked(from, to, program string) error {
	folders, err := libraryFolders(from)
	if err != nil {
		return err
	}
	copied := map[string]bool{}
	for queue := []string{program}; len(queue) > 0; queue = queue[1:] {
		if copied[queue[0]] {
			continue
		}
		copied[queue[0]] = true
		loader, names, err := linkedLibraries(filepath.Join(from, filepath.FromSlash(queue[0])))
		if err != nil {
			return fmt.Errorf("%s: %w", queue[0], err)
		}
		if err := copyFile(from, to, queue[0]); err != nil {
			return err
		}
		if loader != "" {
			queue = append(queue, strings.TrimPrefix(loader, "/"))
		}
		for _, name := range names {
			library, err := findLibrary(from, folders, name)
			if err != nil {
				return fmt.Errorf("%s: %w", queue[0], err)
			}
			queue = append(queue, library)
		}
	}
	return nil
}

// libraryFolders returns the default search path of Debian's loader: the folders of
// the machine's architecture, then the common ones.
func libraryFolders(root string) ([]string, error) {
	var folders []string
	for _, pattern := range []string{"lib/*-linux-gnu*", "usr/lib/*-linux-gnu*", "lib", "usr/lib"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, folder := range found {
			relative, err := filepath.Rel(root, folder)
			if err != nil {
				return nil, err
			}
			folders = append(folders, filepath.ToSlash(relative))
		}
	}
	return folders, nil
}

// linkedLibraries returns the loader and the names of the libraries that a program or
// library is linked to.
func linkedLibraries(file string) (loader string, names []string, err error) {
	binary, err := elf.Open(file)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = binary.Close() }()
	if section := binary.Section(".interp"); section != nil {
		content, err := section.Data()
		if err != nil {
			return "", nil, err
		}
		loader = strings.TrimRight(string(content), "\x00")
	}
	names, err = binary.ImportedLibraries()
	return loader, names, err
}

func findLibrary(root string, folders []string, name string) (string, error) {
	for _, folder := range folders {
		library := path.Join(folder, name)
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(library))); err == nil {
			return library, nil
		}
	}
	return "", fmt.Errorf("none of the packages has %s in %s", name, strings.Join(folders, ", "))
}

// copyFile copies a file. It follows symbolic links, and the copy has the name of the
// link.
func copyFile(from, to, name string) error {
	source := filepath.Join(from, filepath.FromSlash(name))
	file, err := filepath.EvalSymlinks(source)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("none of the packages has %s", name)
	}
	if err != nil {
		return err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	target := filepath.Join(to, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, content, 0o755)
}
