package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

func TestNextLook(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		again    time.Duration
		random   float64
		expected time.Duration
	}{
		"if nothing is due, expect a look now and then":        {0, 0, 48 * time.Second},
		"if nothing is due, expect it spread":                  {0, 1, 72 * time.Second},
		"if it is due in hours, expect a look before":          {8 * time.Hour, 0.5, time.Minute},
		"if it is due soon, expect the first replica then":     {20 * time.Second, 0, 20 * time.Second},
		"if it is due soon, expect the last a tenth later":     {20 * time.Second, 1, 22 * time.Second},
		"if it is over, expect a second":                       {-time.Hour, 0, time.Second},
		"if it is due at the moment, expect no more than that": {time.Millisecond, 1, 1100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			f := follower{every: time.Minute, random: func() float64 { return test.random }}
			var again time.Time
			if test.again != 0 {
				again = now.Add(test.again)
			}
			assert.Equal(t, test.expected, f.next(again, now))
		})
	}
}

func TestRetryBacksOff(t *testing.T) {
	f := follower{random: func() float64 { return 0 }}
	var least, most []time.Duration
	for range 8 {
		least = append(least, f.retry())
	}
	f = follower{random: func() float64 { return 1 }}
	for range 8 {
		most = append(most, f.retry())
	}
	ms := time.Millisecond
	assert.Equal(t, []time.Duration{250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 5000 * ms, 5000 * ms, 5000 * ms}, least)
	assert.Equal(t, []time.Duration{500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 10000 * ms, 10000 * ms, 10000 * ms}, most)
	f.failures = 1 << 20
	assert.Equal(t, 10*time.Second, f.retry())
}

func TestTheSameTroubleIsSaidOnce(t *testing.T) {
	var log bytes.Buffer
	f := follower{log: slog.New(slog.NewJSONHandler(&log, nil)), said: map[string]string{}}
	for _, err := range []error{os.ErrClosed, os.ErrClosed, os.ErrExist, os.ErrClosed} {
		f.complain("publish", "not published", err)
	}
	f.report(publish.Outcome{Result: publish.Unchanged})
	f.complain("roots", "no roots", os.ErrClosed)
	f.complain("publish", "not published", os.ErrClosed)
	f.complain("roots", "no roots", os.ErrClosed)
	assert.Equal(t, 5, strings.Count(log.String(), "\n"), log.String())
}

func TestRootsFileKeepsTheLastGoodOnes(t *testing.T) {
	r := rootsFile{path: filepath.Join(t.TempDir(), "root-cert.pem")}
	roots, err := r.read()
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.Empty(t, roots)

	root := certtest.NewAuthority(t)
	require.NoError(t, os.WriteFile(r.path, root.CertificatePEM, 0o600))
	roots, err = r.read()
	require.NoError(t, err)
	assert.Equal(t, root.CertificatePEM, certs.EncodeCertificates(roots))

	require.NoError(t, os.WriteFile(r.path, root.CertificatePEM[:100], 0o600))
	roots, err = r.read()
	assert.ErrorContains(t, err, r.path+": ")
	assert.Equal(t, root.CertificatePEM, certs.EncodeCertificates(roots))
}
