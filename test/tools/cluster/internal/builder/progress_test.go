package builder

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestProgressReporterSummarizesGoOutput(t *testing.T) {
	var out bytes.Buffer
	start := time.Unix(1000, 0)
	reporter := &progressReporter{out: &out, label: "building etcd", start: start}
	reporter.read(strings.NewReader("go: downloading go.uber.org/zap v1.27.1\ngo.uber.org/zap\ngo.uber.org/zap/zapcore\n" +
		"# k8s.io/kubernetes/cmd/x\ncmd/x.go:3:2: undefined: y\n"))
	reporter.report(start.Add(20*time.Second + 400*time.Millisecond))
	want := "building etcd: 20s, 1 modules downloaded, 2 packages compiled, at go.uber.org/zap/zapcore\n"
	if out.String() != want {
		t.Errorf("progress %q, want %q", out.String(), want)
	}
	if want := "# k8s.io/kubernetes/cmd/x\ncmd/x.go:3:2: undefined: y"; reporter.lastErrors() != want {
		t.Errorf("errors %q, want %q", reporter.lastErrors(), want)
	}
}

func TestProgressReporterKeepsTheLastErrors(t *testing.T) {
	reporter := &progressReporter{}
	for range maxErrorLines {
		reporter.line("an early complaint")
	}
	reporter.line("the last one")
	lines := strings.Split(reporter.lastErrors(), "\n")
	if len(lines) != maxErrorLines || lines[maxErrorLines-1] != "the last one" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}
