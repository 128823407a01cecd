package manifest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	sigsyaml "sigs.k8s.io/yaml"
)

func seed(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.*")
	if err != nil || len(inputs) == 0 {
		f.Fatal("no seeds in testdata")
	}
	for _, input := range inputs {
		data, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")))
	}
	f.Add([]byte(edgePod))
	f.Add([]byte("\xef\xbb\xbf%YAML 1.1\n---\n" + edgePod + "...\n# x\n---"))
	f.Add([]byte("{}{} \r[]"))
}

// FuzzSplit looks for a stream that does not survive being cut and joined, or
// whose documents the YAML library would cut elsewhere.
func FuzzSplit(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		line := 1
		chunks := split(data)
		if got := rejoin(chunks); !bytes.Equal(got, data) {
			t.Fatalf("%q came out as %q", data, got)
		}
		for _, c := range chunks {
			if want := line + lines(c.prefix); c.line != want && !bytes.Contains(data, []byte("\r")) {
				t.Fatalf("%q: body %q on line %d, want %d", data, c.body, c.line, want)
			}
			line = c.line + lines(c.body) + lines(c.suffix)
		}
	})
}

// FuzzTransform looks for a panic, for a byte that changes without an edit,
// and for an edit that changes what it should not.
func FuzzTransform(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		started := time.Now()
		defer func() {
			// It looks for what all but hangs, not for what is slow today.
			if took := time.Since(started); took > 30*time.Second {
				t.Fatalf("%q took %s", data, took)
			}
		}()
		sources := []Source{{"in", data}}
		same, err := Transform(sources, "default", func(Workload) Edit { return Edit{} })
		if err == nil && !bytes.Equal(same.Text(), data) {
			t.Fatalf("%q came out as %q", data, same.Text())
		}
		result, err := Transform(sources, "default", edgeEditor)
		if err != nil {
			return
		}
		if _, err := result.JSON(); err != nil {
			t.Logf("no JSON: %v", err)
		}
		_ = result.Diff(true)
		for _, d := range result.Documents {
			if !d.Changed() {
				continue
			}
			if _, err := sigsyaml.YAMLToJSON(d.After); err != nil {
				t.Fatalf("%q became %q: %v", d.Before, d.After, err)
			}
		}
		again, err := Transform([]Source{{"out", result.Text()}}, "default", func(Workload) Edit { return Edit{} })
		if err != nil {
			t.Fatalf("%q became %q: %v", data, result.Text(), err)
		}
		if len(again.Decisions) != len(result.Decisions) {
			t.Fatalf("%q became %q: %d workloads, want %d", data, result.Text(), len(again.Decisions), len(result.Decisions))
		}
	})
}
