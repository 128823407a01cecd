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

// copyLinked copies a program out of an unpacked root into another: with its
// loader, and the libraries that the program and they are linked to.
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

// libraryFolders lists where Debian's loader looks by itself: the folders of the
// machine's architecture, and those of all.
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

// linkedLibraries reads the loader and the libraries that a program or library asks for.
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

// copyFile copies what a path leads to; where that is a symbolic link, what it
// leads to in the end, under the path's name.
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
