package apiserver

import (
	"bytes"
	"os"
)

// tailBytes limits how much of a log tail reads.
const tailBytes = 16 << 10

// tail returns the last lines of a file, or the error of reading it.
func tail(path string, lines int) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err.Error()
	}
	content := make([]byte, min(info.Size(), tailBytes))
	n, _ := file.ReadAt(content, info.Size()-int64(len(content)))
	all := bytes.Split(bytes.TrimRight(content[:n], "\n"), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return string(bytes.Join(all, []byte("\n")))
}
