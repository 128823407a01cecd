package main

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/internal/publish"
)

func TestTheSameWarningIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	l := publishLoop{log: slog.New(slog.NewJSONHandler(&log, nil)), warnings: map[string]string{}}
	for _, err := range []error{os.ErrClosed, os.ErrClosed, os.ErrExist, os.ErrClosed} {
		l.warnOnce("publish", "not published", err)
	}
	l.logOutcome(publish.Outcome{Result: publish.Unchanged})
	l.warnOnce("roots", "no roots", os.ErrClosed)
	l.warnOnce("publish", "not published", os.ErrClosed)
	l.warnOnce("roots", "no roots", os.ErrClosed)
	assert.Equal(t, 5, strings.Count(log.String(), "\n"), log.String())
}
