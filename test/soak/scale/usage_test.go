package scale

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
)

// memory is the memory of a process, in bytes. The limit applies to all of it, though the
// processes of a program share its file.
type memory struct{ resident, anonymous, peak int64 }

// memoryOf reads the memory of a server.
func memoryOf(b *testing.B, s *environment.Server) memory {
	b.Helper()
	var m memory
	var err error
	m.resident, m.anonymous, err = s.Memory()
	require.NoError(b, err)
	m.peak = procField(b, procFile(s, "status"), "VmHWM:") << 10
	return m
}

// resetPeak resets the peak of resident memory (proc(5): 5 to clear_refs).
func resetPeak(b *testing.B, s *environment.Server) {
	b.Helper()
	require.NoError(b, os.WriteFile(procFile(s, "clear_refs"), []byte("5"), 0o200))
}

// ticks is the number of ticks in a second of CPU time (USER_HZ is 100 on all platforms of
// Go).
const ticks = 100

// readCPUTime returns the CPU time that a process has used.
func readCPUTime(b *testing.B, s *environment.Server) time.Duration {
	b.Helper()
	text, err := os.ReadFile(procFile(s, "stat"))
	require.NoError(b, err)
	// The name of the program, in parentheses, may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	require.Greater(b, len(fields), 12)
	total := time.Duration(0)
	for _, text := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(text, 10, 64)
		require.NoError(b, err)
		total += time.Duration(n) * time.Second / ticks
	}
	return total
}

func procFile(s *environment.Server, file string) string {
	return filepath.Join("/proc", strconv.Itoa(s.PID()), file)
}

func procField(b *testing.B, path, name string) int64 {
	b.Helper()
	text, err := os.ReadFile(path)
	require.NoError(b, err)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			require.NoError(b, err)
			return n
		}
	}
	require.Fail(b, "no such line", "%s in %s", name, path)
	return 0
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }
