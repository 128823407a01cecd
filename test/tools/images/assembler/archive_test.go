package main

import (
	"archive/tar"
	"errors"
	"io"
	"maps"
	"strconv"
	"testing"
)

// listFiles notes the files of an archive with their permissions.
func listFiles(t *testing.T, archive io.Reader, found map[string]string) {
	t.Helper()
	for reader := tar.NewReader(archive); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.ModTime.Unix() > 0 {
			t.Errorf("%s: uid %d, gid %d, %s", header.Name, header.Uid, header.Gid, header.ModTime)
		}
		found[header.Name] = strconv.FormatInt(header.Mode, 8)
	}
}

func equal(a, b map[string]string) bool { return maps.Equal(a, b) }
