package security

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTLS tries handshakes with all versions, ciphers, protocols and names.
func TestTLS(t *testing.T) {
	webhook := sharedServers(t).webhook
	address := strings.TrimPrefix(webhook.ReviewURL, "https://")
	insecureSuites := map[string]uint16{}
	for _, suite := range tls.InsecureCipherSuites() {
		insecureSuites[suite.Name] = suite.ID
	}
	handshake := func(change func(*tls.Config)) (tls.ConnectionState, error) {
		config := tlsConfig(t)
		change(config)
		raw, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer func() { _ = raw.Close() }()
		conn, ok := raw.(*tls.Conn)
		if !ok {
			return tls.ConnectionState{}, errors.New("no TLS")
		}
		return conn.ConnectionState(), nil
	}
	for name, test := range map[string]struct {
		change  func(*tls.Config)
		version uint16 // 0 means that the handshake fails
	}{
		"if it is TLS 1.0, expect a refusal":            {func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 }, 0},
		"if it is TLS 1.1, expect a refusal":            {func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }, 0},
		"if it is TLS 1.2, expect TLS 1.2":              {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, tls.VersionTLS12},
		"if it is TLS 1.3, expect TLS 1.3":              {func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, tls.VersionTLS13},
		"if it may choose, expect TLS 1.3":              {func(*tls.Config) {}, tls.VersionTLS13},
		"if another protocol is asked for, expect none": {func(c *tls.Config) { c.NextProtos = []string{"istio"} }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			state, err := handshake(test.change)
			if test.version == 0 {
				assert.ErrorContains(t, err, "remote error: tls: ")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.version, state.Version)
			assert.Empty(t, state.VerifiedChains[0][0].EmailAddresses)
		})
	}
	for name, id := range insecureSuites {
		t.Run("if the cipher is "+name+", expect a refusal", func(t *testing.T) {
			_, err := handshake(func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{id} })
			assert.ErrorContains(t, err, "remote error: tls: handshake failure")
		})
	}
	t.Run("if another name is asked for, expect the one certificate, which is not that name's", func(t *testing.T) {
		_, err := handshake(func(c *tls.Config) { c.ServerName = "kubernetes.default.svc" })
		assert.ErrorContains(t, err, "not kubernetes.default.svc")
		_, err = handshake(func(c *tls.Config) { c.ServerName = "isthmus-webhook.isthmus-system.svc" })
		assert.NoError(t, err)
	})
	t.Run("if it is plain HTTP, expect 400 and no review", func(t *testing.T) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		require.NoError(t, conn.SetDeadline(time.Now().Add(timeout)))
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		text, err := io.ReadAll(conn)
		require.NoError(t, err)
		assert.Equal(t, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", string(text))
	})
}
