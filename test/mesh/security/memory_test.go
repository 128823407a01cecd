package security

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
)

// memoryLimit is the webhook's memory limit in the chart, above which the kernel would end
// it, less what the kernel itself uses for connections.
const memoryLimit = 112 << 20

// maxReview is the largest review that the server reads.
const maxReview = 7 << 20

// endlessReader is a body that never ends.
type endlessReader struct{}

func (endlessReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// usage is the peak use of a process.
type usage struct {
	// memory is in bytes, without mapped files.
	memory int64
	// descriptors is the number of open files and connections.
	descriptors int
}

// watchUsage samples the use of a process until the returned function is called.
func watchUsage(t testing.TB, s *environment.Server) (peakUsage func() usage) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	var peak usage
	sample := func() {
		if _, anonymous, err := s.Memory(); err == nil {
			peak.memory = max(peak.memory, anonymous)
		}
		if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID())); err == nil {
			peak.descriptors = max(peak.descriptors, len(open))
		}
	}
	go func() {
		defer close(done)
		for {
			sample()
			select {
			case <-stop:
				sample() // the use at the end counts, however short it was
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() usage {
		close(stop)
		<-done
		return peak
	}
}

// TestMemoryIsBounded has a hundred clients send, at the same time, what takes the most
// memory, while good reviews are answered.
func TestMemoryIsBounded(t *testing.T) {
	webhook := sharedServers(t).webhook
	ns := env.CreateNamespace(t, nil)
	blank := strings.Repeat(" ", maxReview+1)
	// These are the longest lists that fit, of the items that take the most memory: as an
	// author can write them, and as the API server completes them. They take a hundred times
	// as much memory as their text.
	braces := edgePodJSON(`"initContainers":[` + strings.Repeat("{},", maxReview/3-1000) + `{}],`)
	filled := edgePodJSON(`"initContainers":[` + strings.Repeat(containerJSON+",", maxReview/len(containerJSON)-100) + containerJSON + `],`)
	for name, attack := range map[string]struct {
		body  func() io.Reader
		codes []int
	}{
		"if reviews are one byte too long, expect 413": {
			func() io.Reader { return strings.NewReader(blank) }, []int{http.StatusRequestEntityTooLarge}},
		"if they say no length and never end, expect 413": {
			func() io.Reader { return endlessReader{} }, []int{http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable}},
		"if they are lists of two million containers, expect 413": {
			func() io.Reader { return strings.NewReader(reviewJSON(ns, braces)) }, []int{http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable}},
		"if they are lists that the API server filled in, expect 413": {
			func() io.Reader { return strings.NewReader(reviewJSON(ns, filled)) }, []int{http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable}},
	} {
		t.Run(name, func(t *testing.T) {
			peakUsage := watchUsage(t, webhook)
			codes := map[int]int{}
			var mu sync.Mutex
			n := reviewsDuring(t, webhook.ReviewURL, ns, func() {
				var attackers sync.WaitGroup
				for i := range 100 {
					c := client(t, i%2 == 0)
					attackers.Go(func() {
						a, err := sendReview(t.Context(), c, webhook.ReviewURL+"/inject/namespace", attack.body())
						mu.Lock()
						defer mu.Unlock()
						if err != nil {
							a.code = 0 // the server closed the connection early
						}
						codes[a.code]++
					})
				}
				attackers.Wait()
			})
			peak := peakUsage()
			t.Logf("%d good reviews answered meanwhile; the attackers got %v; at most %d MiB", n, codes, peak.memory>>20)
			require.True(t, webhook.Running())
			assert.Less(t, peak.memory, int64(memoryLimit))
			for code := range codes {
				assert.Contains(t, append(attack.codes, 0), code)
			}
		})
	}
}
