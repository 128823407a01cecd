package security

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestSlowClients opens 300 connections of each kind, together more than the server accepts.
// Good reviews are answered, and every connection ends.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	webhook := sharedServers(t).webhook
	ns := env.CreateNamespace(t, nil)
	address := strings.TrimPrefix(webhook.ReviewURL, "https://")
	begin := "POST /inject/namespace HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	const clientsPerKind = 300
	peakUsage := watchUsage(t, webhook)
	// results receives how each connection ended.
	results := make(chan error, 4*clientsPerKind)
	n := reviewsDuring(t, webhook.ReviewURL, ns, func() {
		config := tlsConfig(t)
		for range clientsPerKind {
			// No TLS at all.
			raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
			if !assert.NoError(t, err) {
				return
			}
			go func() { results <- drain(raw, "") }()
			for _, text := range []string{
				"",                                      // a handshake and nothing more
				begin,                                   // headers that do not end
				begin + "Content-Length: 1000\r\n\r\n{", // a body that does not end
			} {
				go func() {
					conn, err := tls.Dial("tcp", address, config)
					if err != nil {
						results <- nil // the server was at its limit of connections
						return
					}
					results <- drain(conn, text)
				}()
			}
		}
		for range 4 * clientsPerKind {
			assert.NoError(t, <-results)
		}
	})
	peak := peakUsage()
	t.Logf("%d good reviews answered meanwhile; at most %d MiB and %d files", n, peak.memory>>20, peak.descriptors)
	assert.Less(t, peak.memory, int64(memoryLimit))
	assert.Less(t, peak.descriptors, 900, "connections are bounded")
}

// drain sends a text and reads until the server closes the connection; the error is that it
// did not.
func drain(conn net.Conn, text string) error {
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, _ = io.WriteString(conn, text)
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%q: still open after %s", text, timeout)
	}
	return nil
}

// TestBodyInDrops sends a review byte by byte: the server answers and closes the connection
// when the time limit of a review is over.
func TestBodyInDrops(t *testing.T) {
	t.Parallel()
	webhook := sharedServers(t).webhook
	conn := dial(t, webhook.ReviewURL, tlsConfig(t))
	_, err := io.WriteString(conn, "POST /inject/namespace HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
	require.NoError(t, err)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				_, _ = io.WriteString(conn, " ")
			}
		}
	}()
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1 400 Bad Request\r\n", line)
}

// newFramer opens a connection for tests that write their own HTTP/2 frames.
func newFramer(t testing.TB, url string, settings ...http2.Setting) (*http2.Framer, *tls.Conn) {
	t.Helper()
	conn := dial(t, url, tlsConfig(t, "h2"))
	_, err := io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	f := http2.NewFramer(conn, conn)
	require.NoError(t, f.WriteSettings(settings...))
	return f, conn
}

// encodeHeaders returns the headers of a review in HTTP/2.
func encodeHeaders(length int) []byte {
	var b strings.Builder
	e := hpack.NewEncoder(&b)
	for _, h := range [][2]string{
		{":method", http.MethodPost}, {":scheme", "https"}, {":authority", "x"}, {":path", "/inject/namespace"},
		{"content-type", "application/json"}, {"content-length", fmt.Sprint(length)},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	return []byte(b.String())
}

// TestClientThatDoesNotRead requests an answer and gives it no flow-control window.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	webhook := sharedServers(t).webhook
	ns := env.CreateNamespace(t, nil)
	body := reviewJSON(ns, edgePodJSON(""))
	f, _ := newFramer(t, webhook.ReviewURL, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	n := reviewsDuring(t, webhook.ReviewURL, ns, func() {
		assert.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encodeHeaders(len(body)), EndHeaders: true}))
		assert.NoError(t, f.WriteData(1, true, []byte(body)))
		for {
			frame, err := f.ReadFrame()
			if !assert.NoError(t, err) {
				return
			}
			switch frame := frame.(type) {
			case *http2.RSTStreamFrame:
				assert.EqualValues(t, 1, frame.StreamID)
				return
			case *http2.DataFrame:
				t.Errorf("%d bytes without a window for them", len(frame.Data()))
			}
		}
	})
	t.Logf("%d good reviews answered meanwhile", n)
}

// TestStreamsAreReset opens streams and resets them at once, as fast as it can, on fifty
// connections.
func TestStreamsAreReset(t *testing.T) {
	const connections = 50
	webhook := sharedServers(t).webhook
	ns := env.CreateNamespace(t, nil)
	peakUsage := watchUsage(t, webhook)
	n := reviewsDuring(t, webhook.ReviewURL, ns, func() {
		done := make(chan struct{})
		for range connections {
			f, conn := newFramer(t, webhook.ReviewURL)
			go func() {
				defer func() { done <- struct{}{} }()
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				block := encodeHeaders(10)
				for i := range uint32(10_000) {
					if f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndHeaders: true}) != nil ||
						f.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
						return // the server closed the connection
					}
				}
			}()
		}
		for range connections {
			<-done
		}
	})
	peak := peakUsage()
	t.Logf("%d good reviews answered meanwhile; at most %d MiB", n, peak.memory>>20)
	assert.Less(t, peak.memory, int64(memoryLimit))
}
