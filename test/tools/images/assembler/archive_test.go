package main

import (
	"archive/tar"
	"errors"
	"io"
	"strconv"
	"testing"
)

// listFiles adds the files of an archive to found, with their permissions.
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
