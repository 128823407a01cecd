package builder

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestNarrator(t *testing.T) {
	var out bytes.Buffer
	start := time.Unix(1000, 0)
	voice := &narrator{out: &out, label: "building etcd", start: start}
	voice.read(strings.NewReader("go: downloading go.uber.org/zap v1.27.1\ngo.uber.org/zap\ngo.uber.org/zap/zapcore\n" +
		"# k8s.io/kubernetes/cmd/x\ncmd/x.go:3:2: undefined: y\n"))
	voice.tell(start.Add(20*time.Second + 400*time.Millisecond))
	want := "building etcd: 20s, 1 modules downloaded, 2 packages compiled, at go.uber.org/zap/zapcore\n"
	if out.String() != want {
		t.Errorf("told %q, want %q", out.String(), want)
	}
	if want := "# k8s.io/kubernetes/cmd/x\ncmd/x.go:3:2: undefined: y"; voice.said() != want {
		t.Errorf("complaints %q, want %q", voice.said(), want)
	}
}

func TestNarratorKeepsTheLastComplaints(t *testing.T) {
	voice := &narrator{}
	for range keptLines {
		voice.line("an early complaint")
	}
	voice.line("the last one")
	lines := strings.Split(voice.said(), "\n")
	if len(lines) != keptLines || lines[keptLines-1] != "the last one" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}
