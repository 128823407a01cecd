package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/tools/images/certpair"
)

// View is the output of look: the state of a folder as seen in a container.
type View struct {
	At  time.Time `json:"at"`
	UID int       `json:"uid"`
	GID int       `json:"gid"`
	// Files are the folder's files, except those whose names begin with a dot.
	Files []File `json:"files"`
	// ID and Serial are those of the certificate in the folder. Pair is the error of
	// reading the pair.
	ID     string `json:"id"`
	Serial string `json:"serial"`
	Pair   string `json:"pair,omitempty"`
	// Write is the error of creating a file in the folder; empty if that succeeds.
	Write string `json:"write"`
	// Capacity is the capacity of the file system, in bytes.
	Capacity uint64 `json:"capacity"`
	// Filled is the number of bytes that were written until the error Full. Charged is
	// by how much the shared memory of the container's control group grew, in bytes.
	Filled  int64  `json:"filled,omitempty"`
	Full    string `json:"full,omitempty"`
	Charged int64  `json:"charged,omitempty"`
	// Reads counts how often the pair was read after the signal to end, FailedReads how
	// often that failed. ReadError is the last error.
	Reads       int    `json:"looks,omitempty"`
	FailedReads int    `json:"lacks,omitempty"`
	ReadError   string `json:"lack,omitempty"`
}

// File is a file of the folder. Mode is in octal digits.
type File struct {
	Name  string `json:"name"`
	Mode  string `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Bytes int64  `json:"bytes"`
	// Read is the error of reading the file.
	Read string `json:"read,omitempty"`
}

// inspector inspects a folder of certificates.
type inspector struct {
	folder         string
	fill, remain   bool
	follow         bool
	linger, settle time.Duration
	view           View
}

// runLook prints the state of the folder once and, at the end, writes it as the
// container's termination message.
func runLook(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("look", flag.ContinueOnError)
	var i inspector
	flags.StringVar(&i.folder, "folder", os.Getenv("EDGE_CERT_DIR"), "`folder` of the certificates (default $EDGE_CERT_DIR)")
	flags.BoolVar(&i.fill, "fill", false, "write to the folder until that fails, then remove the file")
	flags.BoolVar(&i.remain, "remain", false, "keep running until the signal to end")
	flags.BoolVar(&i.follow, "follow", false, "with --remain, print every new certificate")
	flags.DurationVar(&i.settle, "settle", 0, "with --fill, how long to leave the folder full")
	flags.DurationVar(&i.linger, "linger", 0, "with --remain, how long to read the certificates after the signal to end")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if i.folder == "" {
		return errors.New("want --folder or EDGE_CERT_DIR")
	}
	if err := i.inspect(ctx); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(i.view); err != nil {
		return err
	}
	if i.remain {
		if i.follow {
			i.followChanges(ctx)
		}
		<-ctx.Done()
		i.pollAfterStop()
	}
	// Outside of a pod the file does not exist or is not writable.
	text, err := json.Marshal(i.view)
	if err != nil {
		return err
	}
	err = os.WriteFile("/dev/termination-log", text, 0o600)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// inspect fills in the view.
func (i *inspector) inspect(ctx context.Context) error {
	v := &i.view
	v.At, v.UID, v.GID, v.Files = time.Now(), os.Getuid(), os.Getgid(), []File{}
	entries, err := os.ReadDir(i.folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		f, err := statFile(filepath.Join(i.folder, entry.Name()))
		if err != nil {
			return err
		}
		v.Files = append(v.Files, f)
	}
	if p, err := certpair.Load(i.folder, time.Now()); err != nil {
		v.Pair = err.Error()
	} else {
		v.ID, v.Serial = p.ID, p.Serial
	}
	probe := filepath.Join(i.folder, "look")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		v.Write = err.Error()
	} else if err := os.Remove(probe); err != nil {
		return err
	}
	var system syscall.Statfs_t
	if err := syscall.Statfs(i.folder, &system); err != nil {
		return err
	}
	v.Capacity = system.Blocks * uint64(system.Bsize)
	if i.fill {
		return i.fillFolder(ctx)
	}
	return nil
}

// statFile describes a file. It follows symbolic links, as a reader does.
func statFile(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	f := File{Name: info.Name(), Mode: fmt.Sprintf("%04o", info.Mode().Perm()), Bytes: info.Size()}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		f.UID, f.GID = owner.Uid, owner.Gid
	}
	if _, err := os.ReadFile(path); err != nil && !info.IsDir() {
		f.Read = err.Error()
	}
	return f, nil
}

// fillFolder writes up to 64 MiB until the file system returns an error.
func (i *inspector) fillFolder(ctx context.Context) (err error) {
	before, err := sharedMemory()
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(i.folder, "ballast"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	chunk := make([]byte, 4096)
	for i.view.Filled < 64<<20 {
		n, err := file.Write(chunk)
		i.view.Filled += int64(n)
		if err != nil {
			i.view.Full = err.Error()
			break
		}
	}
	after, err := sharedMemory()
	if err != nil {
		return err
	}
	i.view.Charged = after - before
	select {
	case <-ctx.Done():
	case <-time.After(i.settle):
	}
	return nil
}

// sharedMemory returns the shared memory of this container's control group in bytes. It
// includes the content of file systems in memory.
func sharedMemory() (int64, error) {
	var errs error
	for _, path := range []string{"/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat"} {
		content, err := os.ReadFile(path)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		for line := range strings.Lines(string(content)) {
			var bytes int64
			if _, err := fmt.Sscanf(line, "shmem %d", &bytes); err == nil {
				return bytes, nil
			}
		}
		errs = errors.Join(errs, fmt.Errorf("%s has no line shmem", path))
	}
	return 0, errs
}

// Change is a line of the output of look --follow: a new certificate, and when its last
// file was written.
type Change struct {
	Serial  string    `json:"serial"`
	Written time.Time `json:"written"`
}

// followChanges prints new certificates until ctx ends. It reads the pair when a file
// has a new modification time.
func (i *inspector) followChanges(ctx context.Context) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	serial, out := i.view.Serial, json.NewEncoder(os.Stdout)
	var seen time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		lastWritten := i.lastWritten()
		if !lastWritten.After(seen) {
			continue
		}
		p, err := certpair.Load(i.folder, time.Now())
		if err != nil {
			continue // not all files are written yet
		}
		seen = lastWritten
		if p.Serial != serial {
			serial = p.Serial
			_ = out.Encode(Change{serial, lastWritten})
		}
	}
}

// lastWritten returns the latest modification time of the folder's files.
func (i *inspector) lastWritten() time.Time {
	var newest time.Time
	entries, err := os.ReadDir(i.folder)
	if err != nil {
		return newest
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest
}

// pollAfterStop reads the pair repeatedly during the linger period.
func (i *inspector) pollAfterStop() {
	end := time.Now().Add(i.linger)
	for time.Now().Before(end) {
		i.view.Reads++
		if _, err := certpair.Load(i.folder, time.Now()); err != nil {
			i.view.FailedReads++
			i.view.ReadError = err.Error()
		}
		time.Sleep(100 * time.Millisecond)
	}
	i.view.At = time.Now()
}
