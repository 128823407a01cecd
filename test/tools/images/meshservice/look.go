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

// View is what look prints: how a folder looks from inside a container.
type View struct {
	At  time.Time `json:"at"`
	UID int       `json:"uid"`
	GID int       `json:"gid"`
	// Files are those of the folder, without what a name with a leading dot hides.
	Files []File `json:"files"`
	// ID and Serial are those of the pair in the folder, Pair what is wrong with it.
	ID     string `json:"id"`
	Serial string `json:"serial"`
	Pair   string `json:"pair,omitempty"`
	// Write is the error of creating a file in the folder, empty where that works.
	Write string `json:"write"`
	// Capacity is the file system's, in bytes.
	Capacity uint64 `json:"capacity"`
	// Filled is how many bytes went into a file until Full, the error. Charged is
	// how much more shared memory the container was charged with then.
	Filled  int64  `json:"filled,omitempty"`
	Full    string `json:"full,omitempty"`
	Charged int64  `json:"charged,omitempty"`
	// Looks counts how often the pair was read after the order to end, and Lacks
	// how often there was none.
	Looks int    `json:"looks,omitempty"`
	Lacks int    `json:"lacks,omitempty"`
	Lack  string `json:"lack,omitempty"`
}

// File is one of the folder, its mode in octal digits.
type File struct {
	Name  string `json:"name"`
	Mode  string `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Bytes int64  `json:"bytes"`
	// Read is the error of reading it.
	Read string `json:"read,omitempty"`
}

// inspector looks at a folder that someone else writes certificates to.
type inspector struct {
	folder         string
	fill, remain   bool
	follow         bool
	linger, settle time.Duration
	view           View
}

// runLook says once how the folder looks, on standard output and, at the end, as the
// container's termination message.
func runLook(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("look", flag.ContinueOnError)
	var l inspector
	flags.StringVar(&l.folder, "folder", os.Getenv("EDGE_CERT_DIR"), "`folder` of the certificates (default $EDGE_CERT_DIR)")
	flags.BoolVar(&l.fill, "fill", false, "write into the folder until that fails, and remove what was written")
	flags.BoolVar(&l.remain, "remain", false, "go on until told to end")
	flags.BoolVar(&l.follow, "follow", false, "with --remain, say every other certificate that appears")
	flags.DurationVar(&l.settle, "settle", 0, "with --fill, how long to leave the folder full")
	flags.DurationVar(&l.linger, "linger", 0, "with --remain, how long to read the certificates after the order to end")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if l.folder == "" {
		return errors.New("want --folder or EDGE_CERT_DIR")
	}
	if err := l.inspect(ctx); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(l.view); err != nil {
		return err
	}
	if l.remain {
		if l.follow {
			l.followChanges(ctx)
		}
		<-ctx.Done()
		l.pollAfterStop()
	}
	// In a container without this file there is nobody to read it.
	text, err := json.Marshal(l.view)
	if err != nil {
		return err
	}
	err = os.WriteFile("/dev/termination-log", text, 0o600)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// inspect looks.
func (l *inspector) inspect(ctx context.Context) error {
	v := &l.view
	v.At, v.UID, v.GID, v.Files = time.Now(), os.Getuid(), os.Getgid(), []File{}
	entries, err := os.ReadDir(l.folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		f, err := statFile(filepath.Join(l.folder, entry.Name()))
		if err != nil {
			return err
		}
		v.Files = append(v.Files, f)
	}
	if p, err := certpair.Load(l.folder, time.Now()); err != nil {
		v.Pair = err.Error()
	} else {
		v.ID, v.Serial = p.ID, p.Serial
	}
	probe := filepath.Join(l.folder, "look")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		v.Write = err.Error()
	} else if err := os.Remove(probe); err != nil {
		return err
	}
	var system syscall.Statfs_t
	if err := syscall.Statfs(l.folder, &system); err != nil {
		return err
	}
	v.Capacity = system.Blocks * uint64(system.Bsize)
	if l.fill {
		return l.fillFolder(ctx)
	}
	return nil
}

// statFile follows links, as a reader does.
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

// fillFolder writes until the file system refuses, at most 64 MiB.
func (l *inspector) fillFolder(ctx context.Context) (err error) {
	before, err := sharedMemory()
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(l.folder, "ballast"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	chunk := make([]byte, 4096)
	for l.view.Filled < 64<<20 {
		n, err := file.Write(chunk)
		l.view.Filled += int64(n)
		if err != nil {
			l.view.Full = err.Error()
			break
		}
	}
	after, err := sharedMemory()
	if err != nil {
		return err
	}
	l.view.Charged = after - before
	select {
	case <-ctx.Done():
	case <-time.After(l.settle):
	}
	return nil
}

// sharedMemory is the shared memory that this container's control group is charged with,
// of which memory that is a file system is a part.
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

// Change is a line that look --follow prints: a certificate that is new in the
// folder, and when the last file of it was written.
type Change struct {
	Serial  string    `json:"serial"`
	Written time.Time `json:"written"`
}

// followChanges looks at the files' times until ctx ends.
func (l *inspector) followChanges(ctx context.Context) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	serial, out := l.view.Serial, json.NewEncoder(os.Stdout)
	var seen time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		lastWritten := l.lastWritten()
		if !lastWritten.After(seen) {
			continue
		}
		p, err := certpair.Load(l.folder, time.Now())
		if err != nil {
			continue // half written
		}
		seen = lastWritten
		if p.Serial != serial {
			serial = p.Serial
			_ = out.Encode(Change{serial, lastWritten})
		}
	}
}

// lastWritten is when the youngest file was.
func (l *inspector) lastWritten() time.Time {
	var youngest time.Time
	entries, err := os.ReadDir(l.folder)
	if err != nil {
		return youngest
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.ModTime().After(youngest) {
			youngest = info.ModTime()
		}
	}
	return youngest
}

// pollAfterStop reads the certificates until the time to linger is over.
func (l *inspector) pollAfterStop() {
	end := time.Now().Add(l.linger)
	for time.Now().Before(end) {
		l.view.Looks++
		if _, err := certpair.Load(l.folder, time.Now()); err != nil {
			l.view.Lacks++
			l.view.Lack = err.Error()
		}
		time.Sleep(100 * time.Millisecond)
	}
	l.view.At = time.Now()
}
