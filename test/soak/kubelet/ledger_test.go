//go:build soak

package kubelet

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// line is what the runtime keeps of something that the kubelet asked for, or
// that became of a container.
type line struct {
	Pod, Did, Container, Image string
}

// history returns a pod's lines, in order.
func history(t testing.TB, pod string) []line {
	t.Helper()
	data, err := os.ReadFile(asked)
	require.NoError(t, err)
	var lines []line
	for raw := range bytes.Lines(data) {
		if !bytes.HasSuffix(raw, []byte("\n")) {
			break // being written
		}
		var l line
		require.NoError(t, json.Unmarshal(raw, &l), string(raw))
		if l.Pod == space+"/"+pod {
			lines = append(lines, l)
		}
	}
	return lines
}

// started counts the starts of a pod's container.
func started(t testing.TB, pod, container string) int {
	return count(t, pod, func(l line) bool { return l.Did == "started" && l.Container == container })
}

// ended counts how often a pod's container was stopped or exited.
func ended(t testing.TB, pod, container string) int {
	return count(t, pod, func(l line) bool { return (l.Did == "stopped" || l.Did == "exited") && l.Container == container })
}

// failed counts how often an image could not be pulled for a pod, or a container
// of it exited.
func failed(t testing.TB, pod, image string) int {
	return count(t, pod, func(l line) bool { return (l.Did == "refused" || l.Did == "exited") && l.Image == image })
}

func count(t testing.TB, pod string, is func(line) bool) int {
	n := 0
	for _, l := range history(t, pod) {
		if is(l) {
			n++
		}
	}
	return n
}
