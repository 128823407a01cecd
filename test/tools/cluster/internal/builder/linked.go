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

// keepLinked copies a program out of an unpacked root into another: with its
// loader, and the libraries that the program and they are linked to.
func keepLinked(from, to, program string) error {
	folders, err := libraryFolders(from)
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for waiting := []string{program}; len(waiting) > 0; waiting = waiting[1:] {
		if kept[waiting[0]] {
			continue
		}
		kept[waiting[0]] = true
		loader, names, err := linked(filepath.Join(from, filepath.FromSlash(waiting[0])))
		if err != nil {
			return fmt.Errorf("%s: %w", waiting[0], err)
		}
		if err := copyFile(from, to, waiting[0]); err != nil {
			return err
		}
		if loader != "" {
			waiting = append(waiting, strings.TrimPrefix(loader, "/"))
		}
		for _, name := range names {
			library, err := find(from, folders, name)
			if err != nil {
				return fmt.Errorf("%s: %w", waiting[0], err)
			}
			waiting = append(waiting, library)
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

// linked reads the loader and the libraries that a program or library asks for.
func linked(file string) (loader string, names []string, err error) {
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

func find(root string, folders []string, name string) (string, error) {
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
