package main

import (
	"encoding/json"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVersion(t *testing.T) {
	original := buildInfo{Version: version, Commit: commit, Date: date}
	t.Cleanup(func() { version, commit, date = original.Version, original.Commit, original.Date })
	version, commit, date = "v1.2.3", "abcdef", "2026-11-21T12:00:00Z"

	got := isthmus(t, "", "version")
	assert.Equal(t, output{exitOK, "isthmus v1.2.3\ncommit: abcdef\ndate:   2026-11-21T12:00:00Z\ngo:     " + runtime.Version() + "\n", ""}, got)

	got = isthmus(t, "", "version", "-o", "json")
	require.Equal(t, exitOK, got.status, got.stderr)
	var b buildInfo
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &b))
	assert.Equal(t, buildInfo{"v1.2.3", "abcdef", "2026-11-21T12:00:00Z", runtime.Version()}, b)

	version = ""
	assert.NotEmpty(t, currentBuild().Version, "a plain go build has a version too")
}
